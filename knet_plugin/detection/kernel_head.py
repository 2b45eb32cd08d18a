"""The kernel head (stage 0): where the kernels, their first masks and the features come from (Section 3.2)."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from knet_plugin.core.mask_ops import group_features
from knet_plugin.core.activation_checkpointing import checkpointed
from knet_plugin.core.stage_config import merge_parts
from knet_plugin.registry import MODELS

__all__ = ['KernelHead', 'KernelProposals']


class KernelProposals(NamedTuple):
    """What the update stages start from; instance kernels come first, then one kernel per stuff class."""

    features: Tensor
    """F, (B, C, H, W)."""
    kernels: Tensor
    """K_0, (B, N, C, K, K)."""
    mask_logits: Tensor
    """M_0, (B, N, H, W)."""
    semantic_logits: Any  # Tensor, or None: the caller knows which
    """Logits of all classes, things and stuff, (B, classes, H, W), or None if not asked for."""


@MODELS.register_module()
class KernelHead(BaseModule):
    """Learned instance kernels and semantic kernels, with their masks.

    ::

        M_0^ins = K_0^ins * loc,  M_0^seg = conv_seg(seg),  F = loc + seg
        K_0^ins += sum over the pixels that M_0^ins claims of F

    ``loc`` and ``seg`` are the localisation FPN's outputs after 1 x 1 conv - norm - ReLU. The kernels of stuff classes
    are the rows of ``conv_seg``'s weight (which no object feature is added to), their masks are its logits.

    Args:
        num_things_classes: Classes whose objects are told apart.
        num_stuff_classes: Classes that own one kernel each; 0 for instance segmentation.
        num_kernels: Instance kernels.
        channels: Channels C.
        kernel_size: Odd side K of the kernels. A stuff kernel is 1 x 1 and sits in the centre.
        localization_fpn: What differs from a ``LocalizationFPN`` of C channels with the same norm and a sine encoding;
            or the config of another that yields two maps of C channels, ``loc`` and ``seg``.
        mask_activation: How pixels are claimed for the object features. None: no object features.
        num_convs: 1 x 1 conv - norm - ReLU blocks before each branch.
        refine: Whether a 3 x 3 conv - norm - ReLU follows them.
        norm_cfg: Norm of these convolutions.
        init_cfg: mmengine's initialisation config.

    Raises:
        ValueError: If ``kernel_size`` is not odd and positive, or a number of classes or kernels makes no sense.
    """

    def __init__(
            self,
            num_things_classes: int = 80,
            num_stuff_classes: int = 0,
            num_kernels: int = 100,
            channels: int = 256,
            kernel_size: int = 1,
            localization_fpn: dict | None = None,
            mask_activation: dict | None = dict(type='knet_plugin.HardMask'),  # noqa: B006, never changed
            num_convs: int = 1,
            refine: bool = False,
            norm_cfg: dict = dict(type='GN', num_groups=32),  # noqa: B006
            init_cfg: dict | None = dict(  # noqa: B006
                type='Normal', layer='Conv2d', std=0.01, override=[
                    dict(type='Normal', name='init_kernels', std=1),
                    # A focal loss starts calm when every class starts improbable (a bias of -4.595 for 0.01).
                    dict(type='Normal', name='conv_seg', std=0.01, bias_prob=0.01)
                ])
    ) -> None:
        super().__init__(init_cfg)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be odd and positive, got kernel_size={kernel_size}')
        if num_things_classes < 1 or num_stuff_classes < 0 or num_kernels < 1:
            raise ValueError('there must be things and instance kernels, got '
                             f'num_things_classes={num_things_classes}, num_stuff_classes={num_stuff_classes}, '
                             f'num_kernels={num_kernels}')
        self.num_things_classes = num_things_classes
        self.num_stuff_classes = num_stuff_classes
        self.num_kernels = num_kernels
        self.channels = channels
        self.kernel_size = kernel_size
        self.localization_fpn = _build_fpn(localization_fpn or {}, channels, norm_cfg)
        self.mask_activation = None if mask_activation is None else MODELS.build(mask_activation)

        def branch() -> nn.Sequential:
            return nn.Sequential(*(ConvModule(channels, channels, 1, norm_cfg=norm_cfg) for _ in range(num_convs)))

        self.loc_convs = branch()
        self.seg_convs = branch()
        self.refine = refine
        if refine:
            self.loc_refine = ConvModule(channels, channels, 3, padding=1, norm_cfg=norm_cfg)
            self.seg_refine = ConvModule(channels, channels, 3, padding=1, norm_cfg=norm_cfg)
        self.init_kernels = nn.Conv2d(channels, num_kernels, kernel_size, padding=kernel_size // 2, bias=False)
        self.conv_seg = nn.Conv2d(channels, num_things_classes + num_stuff_classes, 1)

    def forward(self, feats: Sequence[Tensor], semantics: bool = True) -> KernelProposals:
        """Propose kernels and masks.

        Args:
            feats: The pyramid levels that the localisation FPN reads, each (B, channels, H_i, W_i).
            semantics: Whether the semantic logits are wanted; without them, those of things are not computed.

        Returns:
            F, K_0, M_0 and the semantic logits.

        Raises:
            ValueError: If the localisation FPN does not yield two maps.
        """
        maps = self.localization_fpn(feats)
        if len(maps) != 2:
            raise ValueError(f'localization_fpn must yield two maps, loc and seg, got {len(maps)}: set num_aux_convs=1')
        loc, seg = maps
        loc, seg = self.loc_convs(loc), self.seg_convs(seg)
        if self.refine:
            loc, seg = self.loc_refine(loc), self.seg_refine(seg)
        features = loc + seg  # F
        mask_logits = self.init_kernels(loc).contiguous()  # M_0^ins; the maps may have channels last in memory
        if semantics:
            semantic_logits = self.conv_seg(seg).contiguous()
            stuff_logits = semantic_logits[:, self.num_things_classes:]
        else:
            semantic_logits, stuff_logits = None, self._stuff_logits(seg)
        kernels = self.init_kernels.weight.expand(len(loc), -1, -1, -1, -1)  # K_0^ins: B, N, C, K, K
        if self.mask_activation is not None:
            # The claims of N x H x W are cheaper to make again than to keep.
            objects = checkpointed(self._object_features, mask_logits, features)  # B, N, C
            kernels = kernels + objects.to(kernels.dtype)[..., None, None]
        if self.num_stuff_classes:
            kernels = torch.cat([kernels, self._stuff_kernels().expand(len(loc), -1, -1, -1, -1)], dim=1)
            mask_logits = torch.cat([mask_logits, stuff_logits], dim=1)
        return KernelProposals(features, kernels, mask_logits, semantic_logits)

    def _object_features(self, mask_logits: Tensor, features: Tensor) -> Tensor:
        """Sums of F over the pixels that each mask claims, (B, N, C)."""
        return group_features(cast(nn.Module, self.mask_activation)(mask_logits), features)

    def _stuff_logits(self, seg: Tensor) -> Tensor | None:
        """Those of the semantic logits that are masks, (B, stuff classes, H, W)."""
        if not self.num_stuff_classes:
            return None
        rows = slice(self.num_things_classes, None)
        return F.conv2d(seg, self.conv_seg.weight[rows], cast(Tensor, self.conv_seg.bias)[rows]).contiguous()

    def _stuff_kernels(self) -> Tensor:
        """Rows of the semantic classifier, (stuff classes, C, K, K): the same map, whatever K is."""
        return F.pad(self.conv_seg.weight[self.num_things_classes:], [self.kernel_size // 2] * 4)


def _build_fpn(cfg: dict[str, Any], channels: int, norm_cfg: dict) -> BaseModule:
    """Lay a config over the FPN that fits the head, unless it is another FPN."""
    default = dict(type='knet_plugin.LocalizationFPN', in_channels=channels, feat_channels=channels,
                   out_channels=channels, norm_cfg=norm_cfg,
                   positional_encoding=dict(type='mmdet.SinePositionalEncoding', num_feats=channels // 2,
                                            normalize=True))
    merged = merge_parts(dict(localization_fpn=default), dict(localization_fpn=cfg))['localization_fpn']
    if merged.get('out_channels', channels) != channels:
        raise ValueError(f'localization_fpn says out_channels={merged["out_channels"]}, but the kernel head has '
                         f'channels={channels}')
    return MODELS.build(merged)
