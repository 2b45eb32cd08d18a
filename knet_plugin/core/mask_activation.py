"""Mask activations: mask logits to the mask weights ``M_{i-1}`` of Eq. 3."""

import math

import torch
from torch import Tensor, nn

from knet_plugin.registry import MODELS

__all__ = ['HardMask', 'SigmoidMask', 'SoftmaxMask']


@MODELS.register_module()
class SoftmaxMask(nn.Module):
    """Softmax over the N kernels, for semantic segmentation. Differentiable."""

    def forward(self, mask_logits: Tensor) -> Tensor:
        """(B, N, H, W) logits to weights that sum to 1 over N at every pixel."""
        return mask_logits.softmax(dim=1)


@MODELS.register_module()
class SigmoidMask(nn.Module):
    """Sigmoid of each mask, for a single (binary) kernel. Differentiable.

    Args:
        threshold: Weights at or below this probability become 0. None: all weights are kept.
    """

    def __init__(self, threshold: float | None = None) -> None:
        super().__init__()
        self.hard_mask = None if threshold is None else HardMask(threshold)

    def forward(self, mask_logits: Tensor) -> Tensor:
        """(B, N, H, W) logits to weights in (0, 1), or 0 at and below the threshold."""
        weights = mask_logits.sigmoid()
        return weights if self.hard_mask is None else weights * self.hard_mask(mask_logits)


@MODELS.register_module()
class HardMask(nn.Module):
    """Binary masks, for instance and panoptic segmentation. No gradient flows through them.

    Args:
        threshold: Pixels above this probability, inside (0, 1), get weight 1, the others 0.
        area_normalized: Whether the weights of a mask are divided by its area, so that the group feature of Eq. 3 is
            the mean over the mask, as in RT-K-Net, and not the sum. A sum drowns the kernel that it is added to.
    """

    def __init__(self, threshold: float = 0.5, area_normalized: bool = False) -> None:
        super().__init__()
        self.area_normalized = area_normalized
        # Up to rounding, sigmoid(x) > p if and only if x > logit(p): comparing logits needs no sigmoid.
        self.logit_threshold = math.log(threshold / (1 - threshold))

    def forward(self, mask_logits: Tensor) -> Tensor:
        """(B, N, H, W) logits to weights that are 0 or 1; if normalised, 0 or 1 / area, at least float32."""
        weights = (mask_logits.detach() > self.logit_threshold).to(mask_logits.dtype)
        if not self.area_normalized:
            return weights
        dtype = torch.promote_types(weights.dtype, torch.float32)  # areas exceed the range of float16
        return weights / weights.sum(dim=(-2, -1), keepdim=True, dtype=dtype).clamp(min=1)
