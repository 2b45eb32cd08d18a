"""Costs of giving a segment to a kernel, as K-Net measures them. The class cost is mmdet's ``FocalLossCost``.

mmdet's own ``DiceCost`` adds its eps at other places, and ``CrossEntropyLossCost`` is not the binary agreement.
"""

from typing import Any

from mmdet.models.task_modules.assigners.match_cost import BaseMatchCost
from mmengine.structures import InstanceData
from torch import Tensor

from knet_plugin.registry import TASK_UTILS

__all__ = ['DiceCost', 'MaskCost']


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
            (N, G), at least float32.
        """
        predictions = pred_instances.masks.flatten(1).float()
        if self.pred_act:
            predictions = predictions.sigmoid() if self.act_mode == 'sigmoid' else predictions.softmax(dim=0)
        return self.weight * self._cost(predictions, gt_instances.masks.flatten(1).float())

    def _cost(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """(N, HW) and (G, HW) values in [0, 1] to (N, G)."""
        raise NotImplementedError


@TASK_UTILS.register_module()
class MaskCost(_SoftMaskCost):
    """Binary agreement, ``-(sum p t + sum (1 - p) (1 - t)) / HW``; arguments as for the other mask cost."""

    def _cost(self, predictions: Tensor, targets: Tensor) -> Tensor:
        agreement = predictions @ targets.T + (1 - predictions) @ (1 - targets).T
        return -agreement / targets.shape[1]


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

    def _cost(self, predictions: Tensor, targets: Tensor) -> Tensor:
        sizes = (predictions.square().sum(dim=1) + self.eps)[:, None] + (targets.square().sum(dim=1) + self.eps)
        return -2 * (predictions @ targets.T) / sizes
