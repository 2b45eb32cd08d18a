"""Bipartite matching of instance kernels and objects by their masks and classes (Section 3.2)."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from mmcv.ops import point_sample
from mmdet.models.task_modules.assigners import AssignResult, BaseAssigner
from mmdet.models.task_modules.assigners.match_cost import BaseMatchCost
from mmengine.logging import print_log
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from knet_plugin.core.feature_map import resize
from knet_plugin.registry import TASK_UTILS

__all__ = ['DiceCost', 'MaskCost', 'MaskHungarianAssigner', 'aligned_masks']

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = dict(sigmoid=torch.sigmoid, softmax=partial(torch.softmax, dim=0))
NOT_FINITE = 1e10  # replaces a cost that is not finite; higher than any real cost


def aligned_masks(mask_logits: Tensor, masks: Tensor, num_points: int | None) -> tuple[Tensor, Tensor]:
    """Bring an image's (N, H, W) logits and (G, h, w) true masks to the same places, which costs can compare.

    These are the pixels of the true masks: (N, h, w) and (G, h, w); or ``num_points`` P uniformly random points, the
    same for all masks: (N, P) and (G, P).
    """
    if num_points is None:
        return resize(mask_logits[None], masks.shape[-2:])[0], masks
    points = torch.rand(1, num_points, 2, device=masks.device)
    # Beyond the border, values are repeated, as by resize. Zeros would make masks uncertain there.
    logits, masks = (point_sample(maps[None].float(), points, padding_mode='border')[0]
                     for maps in (mask_logits, masks))
    return logits, masks


@TASK_UTILS.register_module()
class MaskCost(BaseMatchCost):
    """Negative binary agreement of two masks, ``-(sum p t + sum (1 - p) (1 - t)) / HW``.

    mmdet's ``CrossEntropyLossCost`` is the binary cross entropy instead.

    Args:
        weight: Factor of the cost.
        pred_act: Whether the predicted masks are logits; otherwise they are probabilities.
        act_mode: Activation of logits: ``'sigmoid'``, or ``'softmax'`` over the kernels.
    """

    def __init__(self, weight: float = 1., pred_act: bool = True, act_mode: str = 'sigmoid') -> None:
        super().__init__(weight)
        self.activate = ACTIVATIONS[act_mode] if pred_act else None

    def __call__(self, pred_instances: InstanceData, gt_instances: InstanceData, img_meta: dict | None = None,
                 **kwargs: Any) -> Tensor:
        """(N, G) costs of predicted ``masks``, (N, h, w), and soft target ``masks``, (G, h, w) in [0, 1].

        Instead of h x w pixels, both may have P points: (N, P) and (G, P).
        """
        masks = pred_instances.masks.float()
        if self.activate is not None:
            masks = self.activate(masks)
        return self.weight * self._cost(masks.flatten(1), gt_instances.masks.flatten(1).float())

    def _cost(self, p: Tensor, t: Tensor) -> Tensor:
        """Cost of (N, HW) probabilities and (G, HW) targets."""
        # sum (1 - p) (1 - t) = HW - sum p - sum t + sum p t
        return (p.sum(dim=1)[:, None] + t.sum(dim=1) - 2 * p @ t.T) / p.shape[1] - 1


@TASK_UTILS.register_module()
class DiceCost(MaskCost):
    """Negative overlap of two masks, ``-2 sum p t / (sum p^2 + eps + sum t^2 + eps)``, of V-Net (arXiv 1606.04797).

    Arguments are those of ``MaskCost``, and ``eps``, which mmdet's ``DiceCost`` adds in other places.
    """

    def __init__(self, weight: float = 1., pred_act: bool = True, act_mode: str = 'sigmoid',
                 eps: float = 1e-3) -> None:
        super().__init__(weight, pred_act, act_mode)
        self.eps = eps

    def _cost(self, p: Tensor, t: Tensor) -> Tensor:
        # vector_norm makes no map of squares.
        squares_p, squares_t = (torch.linalg.vector_norm(masks, dim=1).square() + self.eps for masks in (p, t))
        return -2 * p @ t.T / (squares_p[:, None] + squares_t)


@TASK_UTILS.register_module()
class MaskHungarianAssigner(BaseAssigner):
    """Assigns each object to the kernel that minimises the sum of all costs.

    Args:
        cls_cost: Config of the class cost, which the kernel head's masks do not have.
        mask_cost: Config of the pixelwise mask cost.
        dice_cost: Config of the mask overlap cost.
        topk: Kernels per object: the matching is repeated among the kernels that are still free. If they run out, the
            objects of the last round compete for the remaining ones.
    """

    def __init__(
            self,
            cls_cost: dict = dict(type='mmdet.FocalLossCost', weight=2.0),  # noqa: B006, never changed
            mask_cost: dict = dict(type='knet_plugin.MaskCost', weight=1.0),  # noqa: B006
            dice_cost: dict = dict(type='knet_plugin.DiceCost', weight=4.0),  # noqa: B006
            topk: int = 1) -> None:
        if topk < 1:
            raise ValueError(f'topk must be positive, got topk={topk}')
        self.cls_cost = TASK_UTILS.build(cls_cost)
        self.mask_cost = TASK_UTILS.build(mask_cost)
        self.dice_cost = TASK_UTILS.build(dice_cost)
        self.topk = topk

    @torch.no_grad()
    def assign(self, pred_instances: InstanceData, gt_instances: InstanceData, img_meta: dict | None = None,
               **kwargs: Any) -> AssignResult:
        """Match the N kernels and G objects of one image. ``img_meta`` and ``kwargs`` are mmdet's and unused.

        Args:
            pred_instances: ``masks``, logits (N, h, w), or (N, P) at points, and, after the kernel head, ``scores``,
                logits (N, classes).
            gt_instances: ``masks``, (G, h, w) or (G, P), in [0, 1], and ``labels``, (G,).

        Returns:
            ``gt_inds``, (N,): 0 for background, k for the k-th object; ``labels``, (N,): -1 for background.
        """
        cost = self.cost(pred_instances, gt_instances).cpu().numpy()
        if not_finite := np.count_nonzero(~np.isfinite(cost)):
            print_log(f'{not_finite} of {cost.size} matching costs are not finite; these pairs are matched last',
                      logger='current', level=logging.WARNING)
            cost = np.nan_to_num(cost, nan=NOT_FINITE, posinf=NOT_FINITE, neginf=NOT_FINITE)
        labels = gt_instances.labels
        gt_inds = np.zeros(len(cost), dtype=np.int64)
        for _ in range(self.topk):
            free = np.flatnonzero(gt_inds == 0)
            kernels, objects = linear_sum_assignment(cost[free])
            gt_inds[free[kernels]] = objects + 1
        assigned = torch.from_numpy(gt_inds).to(labels.device)
        return AssignResult(len(labels), assigned, None, torch.cat([labels.new_full((1, ), -1), labels])[assigned])

    def cost(self, pred_instances: InstanceData, gt_instances: InstanceData) -> Tensor:
        """Sum of the costs, (N, G). Autocast is off, because sums over pixels exceed float16's range."""
        with torch.autocast(pred_instances.masks.device.type, enabled=False):
            cost = self.mask_cost(pred_instances, gt_instances) + self.dice_cost(pred_instances, gt_instances)
            if 'scores' in pred_instances:
                cost = cost + self.cls_cost(pred_instances, gt_instances)
        return cost
