"""Costs of giving a segment to a kernel, as K-Net measures them. The class cost is mmdet's ``FocalLossCost``.

mmdet's own ``DiceCost`` adds its eps at other places, and ``CrossEntropyLossCost`` is not the binary agreement.
"""

from functools import cached_property
from typing import Any

import torch
from mmdet.models.task_modules.assigners.match_cost import BaseMatchCost
from mmengine.structures import InstanceData
from torch import Tensor

from knet_plugin.registry import TASK_UTILS

__all__ = ['DiceCost', 'MaskCost', 'MaskOverlaps']


class MaskOverlaps:
    """What the mask costs of an image are made of, each computed once, when it is first read.

    Args:
        predictions: Probabilities of N kernels, (N, h, w).
        targets: Soft masks of G segments, (G, h, w), values in [0, 1].
        dtype: Type of the factors of ``products``. In bfloat16 these deviate by up to 3 * 2^-8 of themselves.
    """

    def __init__(self, predictions: Tensor, targets: Tensor, dtype: torch.dtype = torch.float32) -> None:
        self.predictions = predictions.flatten(1).float()
        self.targets = targets.flatten(1).float()
        self.dtype = dtype
        self.pixels = self.targets.shape[1]

    @cached_property
    def products(self) -> Tensor:
        """``sum p t`` of every pair, (N, G)."""
        return (self.predictions.to(self.dtype) @ self.targets.to(self.dtype).T).float()

    @cached_property
    def areas(self) -> Tensor:
        """``sum p + sum t`` of every pair, (N, G)."""
        return self.predictions.sum(dim=1)[:, None] + self.targets.sum(dim=1)

    @cached_property
    def squares(self) -> tuple[Tensor, Tensor]:
        """``sum p^2``, (N,), and ``sum t^2``, (G,)."""
        # As norms, so that no map of squares is made.
        predictions, targets = (torch.linalg.vector_norm(maps, dim=1).square() for maps in (
            self.predictions, self.targets))
        return predictions, targets


class _SoftMaskCost(BaseMatchCost):
    """A cost that compares probabilities with soft masks.

    Args:
        weight: Factor of the cost.
        pred_act: Whether ``pred_instances.masks`` are logits; if not, they are probabilities.
        act_mode: What makes them probabilities: ``'sigmoid'``, or ``'softmax'`` over the kernels.

    Raises:
        ValueError: If ``act_mode`` is neither.
    """

    def __init__(self, weight: float = 1., pred_act: bool = True, act_mode: str = 'sigmoid') -> None:
        super().__init__(weight)
        if act_mode not in ('sigmoid', 'softmax'):
            raise ValueError(f"act_mode must be 'sigmoid' or 'softmax', got act_mode={act_mode!r}")
        self.pred_act = pred_act
        self.act_mode = act_mode

    def __call__(self, pred_instances: InstanceData, gt_instances: InstanceData, img_meta: dict | None = None,
                 **kwargs: Any) -> Tensor:
        """Cost of every pair.

        Args:
            pred_instances: ``masks`` of N kernels, (N, h, w).
            gt_instances: ``masks`` of G segments, (G, h, w), values in [0, 1].
            img_meta: Not read.
            **kwargs: Not read.

        Returns:
            (N, G), float32.
        """
        return self.of_overlaps(MaskOverlaps(self.activate(pred_instances.masks), gt_instances.masks))

    def activate(self, masks: Tensor) -> Tensor:
        """``pred_instances.masks`` to probabilities, (N, h, w)."""
        if not self.pred_act:
            return masks
        return masks.float().sigmoid() if self.act_mode == 'sigmoid' else masks.float().softmax(dim=0)

    def of_overlaps(self, overlaps: MaskOverlaps) -> Tensor:
        """The same, (N, G), where another cost has compared the masks already."""
        return self.weight * self._cost(overlaps)

    def _cost(self, overlaps: MaskOverlaps) -> Tensor:
        raise NotImplementedError


@TASK_UTILS.register_module()
class MaskCost(_SoftMaskCost):
    """Binary agreement, ``-(sum p t + sum (1 - p) (1 - t)) / HW``; arguments as for the other mask cost."""

    def _cost(self, overlaps: MaskOverlaps) -> Tensor:
        # The second sum is HW - sum p - sum t + sum p t, which spares a product.
        return (overlaps.areas - 2 * overlaps.products) / overlaps.pixels - 1


@TASK_UTILS.register_module()
class DiceCost(_SoftMaskCost):
    """``-2 sum p t / (sum p^2 + eps + sum t^2 + eps)``, of V-Net (arXiv 1606.04797).

    Args:
        weight: Factor of the cost.
        pred_act: Whether ``pred_instances.masks`` are logits; if not, they are probabilities.
        act_mode: What makes them probabilities: ``'sigmoid'``, or ``'softmax'`` over the kernels.
        eps: Keeps two empty masks from dividing by zero.
    """

    def __init__(self, weight: float = 1., pred_act: bool = True, act_mode: str = 'sigmoid',
                 eps: float = 1e-3) -> None:
        super().__init__(weight, pred_act, act_mode)
        self.eps = eps

    def _cost(self, overlaps: MaskOverlaps) -> Tensor:
        predictions, targets = overlaps.squares
        return -2 * overlaps.products / ((predictions + self.eps)[:, None] + (targets + self.eps))
