"""The kernel head (stage 0): features, first kernels and their masks (Section 3.2)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from knet_plugin.core.feature_map import FeatureMap
from knet_plugin.core.stage_config import merge_part
from knet_plugin.registry import MODELS

__all__ = ['InstanceKernels', 'KernelHead', 'KernelProposals']


class InstanceKernels(NamedTuple):
    """Instance kernels without group features, and their masks."""

    loc: Tensor  # localisation features that the kernels are convolved with: B, C, H, W
    kernels: Tensor  # B, N, C, K, K
    mask_logits: Tensor  # M_0^ins: B, N, H, W
    class_logits: Tensor | None = None  # see KernelProposals
    centre_logits: Tensor | None = None


class KernelProposals(NamedTuple):
    """Input of the update stages: N kernels per image, first the instance kernels, then one for each stuff class."""

    features: Tensor  # F: B, C, H, W
    kernels: Tensor  # K_0: B, N, C, K, K
    mask_logits: Tensor  # M_0: B, N, H, W
    semantic_logits: Tensor | None  # of all classes, things and stuff: B, classes, H, W; see KernelHead.forward
    class_logits: Tensor | None = None  # of instance kernels that were chosen by class: B, N, T, without gradient
    centre_logits: Tensor | None = None  # of centres of objects: B, T, H, W


@MODELS.register_module()
class KernelHead(BaseModule):
    """Learned instance kernels and semantic kernels, with their masks.

    ::

        M_0^ins = K_0^ins * loc,  M_0^seg = conv_seg(seg),  F = loc + seg
        K_0^ins += sum_uv M_0^ins F                                          Eq. 3

    ``loc`` and ``seg`` are the outputs of the localisation FPN after 1 x 1 conv - norm - ReLU. The kernels of the stuff
    classes are rows of ``conv_seg``'s weight, without group features; their masks are its logits.

    Args:
        num_things_classes: Classes with instances.
        num_stuff_classes: Classes with one kernel each; 0 for instance segmentation.
        num_kernels: Instance kernels.
        channels: Channels C.
        kernel_size: Odd side K of the kernels. A stuff kernel is 1 x 1, padded with zeros to K x K.
        localization_fpn: What differs from a ``LocalizationFPN`` of C channels with the same norm; or the config of
            another module that yields two maps of C channels, ``loc`` and ``seg``, such as ``PixelDecoderAdapter``.
        mask_activation: Config of the mask weights of Eq. 3. None: no group features are added to the kernels.
        branches: Layers of the two branches: ``num_convs``, the number of 1 x 1 conv - norm - ReLU blocks (1 by
            default), and ``refine``, whether a 3 x 3 block follows (False by default).
        norm_cfg: Norm of these convolutions.
        init_cfg: mmengine's initialisation config.
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
            branches: dict | None = None,
            norm_cfg: dict = dict(type='GN', num_groups=32),  # noqa: B006
            init_cfg: dict | None = dict(  # noqa: B006
                type='Normal', layer='Conv2d', std=0.01, override=[
                    dict(type='Normal', name='init_kernels', std=1),
                    # A focal loss needs every class to start improbable: a bias of -4.595 for a probability of 0.01.
                    dict(type='Normal', name='conv_seg', std=0.01, bias_prob=0.01)
                ])
    ) -> None:
        super().__init__(init_cfg)
        self.num_things_classes = num_things_classes
        self.num_stuff_classes = num_stuff_classes
        self.num_kernels = num_kernels
        self.channels = channels
        self.kernel_size = kernel_size
        self.norm_cfg = norm_cfg
        default_fpn = dict(
            type='knet_plugin.LocalizationFPN', in_channels=channels, feat_channels=channels, out_channels=channels,
            positional_encoding=dict(type='mmdet.SinePositionalEncoding', num_feats=channels // 2, normalize=True),
            norm_cfg=norm_cfg)
        self.localization_fpn = MODELS.build(merge_part(default_fpn, localization_fpn or {}))
        self.mask_activation = None if mask_activation is None else MODELS.build(mask_activation)
        self._build_branches(norm_cfg, **(branches or {}))
        self._build_instance_kernels()
        self.conv_seg = nn.Conv2d(channels, num_things_classes + num_stuff_classes, 1)

    def _build_branches(self, norm_cfg: dict, num_convs: int = 1, refine: bool = False) -> None:
        def conv(size: int) -> ConvModule:
            return ConvModule(self.channels, self.channels, size, padding=size // 2, norm_cfg=norm_cfg)

        self.loc_convs = nn.Sequential(*(conv(1) for _ in range(num_convs)))
        self.seg_convs = nn.Sequential(*(conv(1) for _ in range(num_convs)))
        self.loc_refine = conv(3) if refine else nn.Identity()
        self.seg_refine = conv(3) if refine else nn.Identity()

    def _build_instance_kernels(self) -> None:
        size = self.kernel_size
        self.init_kernels = nn.Conv2d(self.channels, self.num_kernels, size, padding=size // 2, bias=False)

    def forward(self, feats: Sequence[Tensor], semantic: bool = True) -> KernelProposals:
        """Compute F, K_0, M_0 and semantic logits.

        Args:
            feats: Pyramid levels, each (B, channels, H_i, W_i).
            semantic: Whether to compute semantic logits even without stuff kernels, when only the loss reads them.
        """
        loc, seg = self.localization_fpn(feats)
        return self.propose(loc, seg, semantic)

    def propose(self, loc: Tensor, seg: Tensor, semantic: bool = True) -> KernelProposals:
        """The same from the outputs of the localization FPN, (B, C, H, W)."""
        loc = self.loc_refine(self.loc_convs(loc))  # B, C, H, W
        seg = self.seg_refine(self.seg_convs(seg))  # B, C, H, W
        instances = self.instance_kernels(loc, seg)
        features = instances.loc + seg  # F: B, C, H, W
        mask_logits = instances.mask_logits
        semantic_logits = None
        if semantic or self.num_stuff_classes:
            semantic_logits = self.conv_seg(seg).contiguous()  # B, classes, H, W
        kernels = self.add_group_features(instances.kernels, features, mask_logits)
        if self.num_stuff_classes and semantic_logits is not None:
            stuff = F.pad(self.conv_seg.weight[self.num_things_classes:], [self.kernel_size // 2] * 4)  # S, C, K, K
            kernels = torch.cat([kernels, stuff.expand(loc.shape[0], -1, -1, -1, -1)], dim=1)
            mask_logits = torch.cat([mask_logits, semantic_logits[:, self.num_things_classes:]], dim=1)
        return KernelProposals(features, kernels, mask_logits, semantic_logits, instances.class_logits,
                               instances.centre_logits)

    def instance_kernels(self, loc: Tensor, seg: Tensor) -> InstanceKernels:
        """The learned instance kernels, from (B, C, H, W) localisation and semantic features."""
        mask_logits = self.init_kernels(loc).contiguous()  # not channels-last as the maps may be
        return InstanceKernels(loc, self.init_kernels.weight.expand(loc.shape[0], -1, -1, -1, -1), mask_logits)

    def add_group_features(self, kernels: Tensor, features: Tensor, mask_logits: Tensor) -> Tensor:
        """Add the features under (B, N, H, W) masks to (B, N, C, K, K) kernels, unless ``mask_activation`` is None."""
        if self.mask_activation is None:
            return kernels
        group = FeatureMap(features).pool(mask_logits, self.mask_activation)  # Eq. 3: B, N, C
        return kernels + group.to(kernels.dtype)[..., None, None]
