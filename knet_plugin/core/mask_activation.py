"""How mask logits become the weights that gather a kernel's pixels (the ``M_{i-1}`` of Eq. 3)."""

import math

import torch
from torch import Tensor, nn

from knet_plugin.registry import MODELS

__all__ = ['HardMask', 'SigmoidMask', 'SoftmaxMask']


@MODELS.register_module()
class SoftmaxMask(nn.Module):
    """Every pixel is shared out among the N kernels: the semantic choice. Differentiable."""

    def forward(self, mask_logits: Tensor) -> Tensor:
        """(B, N, H, W) logits to weights that sum to 1 over N at every pixel."""
        return mask_logits.softmax(dim=1)


@MODELS.register_module()
class SigmoidMask(nn.Module):
    """Every kernel claims its pixels on its own, softly. The choice for a single (binary) kernel. Differentiable.

    Args:
        threshold: Probability that a claimed pixel must exceed. None: all pixels are claimed.
    """

    def __init__(self, threshold: float | None = None) -> None:
        super().__init__()
        self.claimed = None if threshold is None else HardMask(threshold)

    def forward(self, mask_logits: Tensor) -> Tensor:
        """(B, N, H, W) logits to weights in (0, 1), or 0 where not claimed."""
        weights = mask_logits.sigmoid()
        return weights if self.claimed is None else weights * self.claimed(mask_logits)


@MODELS.register_module()
class HardMask(nn.Module):
    """Every kernel claims the pixels above a probability: the choice for objects. No gradient flows through it.

    Args:
        threshold: Probability that a claimed pixel must exceed, inside (0, 1).

    Raises:
        ValueError: If ``threshold`` is not inside (0, 1).
    """

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        if not 0 < threshold < 1:
            raise ValueError(f'threshold must lie inside (0, 1), got threshold={threshold}')
        # sigmoid(x) > p where x > logit(p) (but for the last digits): comparing logits spares a full-size exponential.
        self.logit_threshold = math.log(threshold / (1 - threshold))

    def forward(self, mask_logits: Tensor) -> Tensor:
        """(B, N, H, W) logits to weights that are 0 or 1."""
        logits = mask_logits.detach()
        # Without a bool in between; contiguous, as torch.compile ends its graph at any other `out`.
        weights = torch.empty_like(logits, memory_format=torch.contiguous_format)
        return torch.gt(logits, self.logit_threshold, out=weights)
