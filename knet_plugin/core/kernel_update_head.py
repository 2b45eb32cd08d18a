"""One stage of K-Net (Eq. 2), the same for semantic, instance and panoptic segmentation."""

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from knet_plugin.core.layers import fc_norm_act
from knet_plugin.core.mask_ops import convolve, group_features, resize
from knet_plugin.core.activation_checkpointing import checkpointed
from knet_plugin.registry import MODELS

__all__ = ['KernelUpdate', 'KernelUpdateHead']


class KernelUpdate(NamedTuple):
    """What a stage yields: ``K_i`` (B, N, C, K, K), ``M_i`` (B, N, H, W) and class logits (B, N, classes) or None."""

    kernels: Tensor
    mask_logits: Tensor
    class_logits: Any  # Tensor, or None if not classified: the caller knows which


@MODELS.register_module()
class KernelUpdateHead(BaseModule):
    """Eq. 2 of the paper, ``K_i, M_i = f_i(M_{i-1}, K_{i-1}, F)``.

    The head knows no task. How masks are weighed in Eq. 3, how a kernel is updated (Eq. 4, 5), how the kernels
    interact (Eq. 6) and whether they are classified are parts that it is given; ``channels`` and the number of taps
    are passed on to them.

    Args:
        channels: Channels C of features and kernels.
        kernel_size: Odd side K of the kernels.
        mask_activation: Config of the mask weights: ``SoftmaxMask`` (semantic; the default), ``HardMask`` (objects) or
            ``SigmoidMask``.
        updater: Config of the ``KernelUpdater`` (or another with ``out_channels`` and ``groups``); it must take and
            yield C channels, and have no channel groups where K > 1. None switches the adaptive update off: the kernel
            stays as it is, unseen by the pixels (Table 4a).
        interaction: Config of the ``KernelInteraction``. None switches it off: no kernel sees another (Table 4a).
        classifier: Config of the ``KernelClassifier``. None: the kernels are not classified.
        feat_transform: Whether the stage works on its own 1 x 1 convolution (with bias) of the features.
        num_mask_fcs: FC-LN-ReLU blocks of ``g_i`` before its last FC.
        mask_stride: Stride, in features, at which the masks are computed before they are brought back: 1 or 2.
        init_cfg: mmengine's initialisation config. None keeps PyTorch's defaults, from which the published semantic
            models were trained.

    Raises:
        ValueError: If ``kernel_size`` is not odd and positive, ``mask_stride`` not 1 or 2, or a part's channels, taps
            or channel groups do not fit.
    """

    def __init__(self,
                 channels: int = 256,
                 kernel_size: int = 1,
                 mask_activation: dict | None = None,
                 updater: dict | None = dict(type='knet_plugin.KernelUpdater'),  # noqa: B006, never changed
                 interaction: dict | None = dict(type='knet_plugin.KernelInteraction'),  # noqa: B006
                 classifier: dict | None = None,
                 feat_transform: bool = True,
                 num_mask_fcs: int = 1,
                 mask_stride: int = 1,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be odd and positive, got kernel_size={kernel_size}')
        if mask_stride not in (1, 2):
            raise ValueError(f'mask_stride must be 1 or 2, got mask_stride={mask_stride}')
        self.channels = channels
        self.kernel_size = kernel_size
        self.mask_stride = mask_stride

        widths = dict(channels=channels)
        taps = dict(widths, num_taps=kernel_size**2)
        self.mask_activation = MODELS.build(mask_activation or dict(type='knet_plugin.SoftmaxMask'))
        self.feat_transform = nn.Conv2d(channels, channels, 1) if feat_transform else None
        self.updater = _build_part('updater', updater, widths)
        if self.updater is not None:
            self._check_updater()
        self.interaction = _build_part('interaction', interaction, taps)
        self.mask_fcs = fc_norm_act(channels, num_mask_fcs)  # g_i, with fc_mask
        self.fc_mask = nn.Linear(channels, channels)
        self.classifier = _build_part('classifier', classifier, widths)

    def _check_updater(self) -> None:
        if not self.updater.out_channels == self.channels:
            raise ValueError(f'the updater must yield the channels={self.channels} of the head, but yields '
                             f'{self.updater.out_channels}')
        if self.kernel_size > 1 and self.updater.groups > 1:
            raise ValueError('channel groups are defined for 1 x 1 kernels only, got '
                             f'kernel_size={self.kernel_size} and an updater of {self.updater.groups} groups')

    def forward(self,
                features: Tensor,
                kernels: Tensor,
                mask_logits: Tensor,
                mask_size: tuple[int, int] | None = None,
                classify: bool = True) -> KernelUpdate:
        """Update kernels and masks.

        Args:
            features: ``F``, (B, C, H, W).
            kernels: ``K_{i-1}``, (B, N, C, K, K).
            mask_logits: ``M_{i-1}``, (B, N, h, w); brought to H x W where it has another size.
            mask_size: Size of the new masks, if not H x W.
            classify: Whether class logits are wanted, if there is a classifier.

        Returns:
            ``K_i``, ``M_i`` and the class logits.
        """
        if self.feat_transform is not None and self.kernel_size > 1:
            features = self.feat_transform(features)
        taps = kernels.flatten(3).transpose(2, 3)  # K_{i-1} as B, N, T, C
        if self.updater is not None:
            grouped = self._group_features(mask_logits, features)  # Eq. 3
            # In full precision also under autocast: these are sums over all pixels, and only N x C of them.
            with torch.autocast(features.device.type, enabled=False):
                # What is inside the updater is cheaper to make again than to keep.
                taps = checkpointed(self.updater, grouped, taps.to(grouped.dtype), parts=self.updater)  # Eq. 4, 5
        if self.interaction is not None:
            taps = self.interaction(taps)  # Eq. 6, K_i

        mask_logits = self._mask_logits(self.fc_mask(self.mask_fcs(taps)), features)  # Eq. 6, M_i
        if mask_size is not None:
            mask_logits = resize(mask_logits, mask_size)
        class_logits = self.classifier(taps) if classify and self.classifier is not None else None
        return KernelUpdate(self._to_kernels(taps), mask_logits, class_logits)

    # For 1 x 1 kernels the transformed features W F + b never exist: Eq. 3 and Eq. 1 are linear in F, so W and b are
    # applied to the N x C results instead of the C x H x W map, which saves H * W * C^2 products and keeping the map
    # for the backward pass. The zero padding of larger kernels sees b at the border, so those use the map itself.

    def _folded_transform(self) -> tuple[Tensor, Tensor] | None:
        """W (C, C) and b (C) of the feature transform, or None where there is none left to apply."""
        if self.feat_transform is None or self.kernel_size > 1:
            return None
        return self.feat_transform.weight.flatten(1), cast(Tensor, self.feat_transform.bias)

    def _group_features(self, mask_logits: Tensor, features: Tensor) -> Tensor:
        """Eq. 3 on the transformed features: ``sum M (W F + b) = W (sum M F) + b (sum M)``, (B, N, C)."""
        # The weights of N x H x W are cheaper to make again than to keep. The product with them is made once: it is the
        # last step of what is recomputed, and W and b, whose gradients read its result, are applied outside.
        grouped, areas = checkpointed(self._gather, mask_logits, features)
        dtype = self.fc_mask.weight.dtype
        if (transform := self._folded_transform()) is not None:
            weight, bias = (value.to(grouped.dtype) for value in transform)
            with torch.autocast(features.device.type, enabled=False):
                grouped = F.linear(grouped, weight) + areas.unsqueeze(-1) * bias
        return grouped.to(dtype)

    def _gather(self, mask_logits: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over the pixels: ``sum M F``, (B, N, C), and ``sum M``, (B, N), both at least float32."""
        masks = self.mask_activation(resize(mask_logits, features.shape[-2:]))  # M_{i-1} as B, N, H, W
        grouped = group_features(masks, features)
        return grouped, masks.sum(dim=(-2, -1), dtype=grouped.dtype)

    def _mask_logits(self, taps: Tensor, features: Tensor) -> Tensor:
        """Eq. 1 on the transformed features: ``k (W F + b) = (W^T k) F + k b``, (B, N, H, W)."""
        size = features.shape[-2:]
        if self.mask_stride == 2:
            scale = [0.5 if side > 1 else 1. for side in size]  # half of one pixel would be none
            features = F.interpolate(features, scale_factor=scale, mode='bilinear', align_corners=False)
        if (transform := self._folded_transform()) is None:
            mask_logits = convolve(self._to_kernels(taps), features)
        else:
            weight, bias = transform
            mask_logits = convolve(self._to_kernels(taps @ weight), features, (taps @ bias).squeeze(-1))
        return resize(mask_logits, size)

    def _to_kernels(self, taps: Tensor) -> Tensor:
        """(B, N, T, C) to (B, N, C, K, K)."""
        return taps.transpose(2, 3).unflatten(-1, (self.kernel_size, self.kernel_size))


def _build_part(name: str, cfg: dict | None, sizes: dict[str, int]) -> Any:
    """Build a part with the head's sizes, which its config may repeat but not contradict."""
    if cfg is None:
        return None
    for key, size in sizes.items():
        if cfg.get(key, size) != size:
            raise ValueError(f'the {name} says {key}={cfg[key]}, but the head has {key}={size}')
    return MODELS.build(cfg, default_args=sizes)
