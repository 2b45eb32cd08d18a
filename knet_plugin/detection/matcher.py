"""Bipartite matching of kernels and objects by their masks (Section 3.2)."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from mmdet.models.task_modules.assigners import AssignResult, BaseAssigner
from mmengine.logging import print_log
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from knet_plugin.detection.match_cost import DiceCost, MaskCost, MaskOverlaps
from knet_plugin.registry import TASK_UTILS

__all__ = ['MaskHungarianAssigner']

UNUSABLE = 1e10
"""Cost that stands in for one that is not finite: every real pair is better."""


@TASK_UTILS.register_module()
class MaskHungarianAssigner(BaseAssigner):
    """Gives every object the kernel that makes the sum of all costs smallest.

    Args:
        cls_cost: Config of the class cost, which is left out where kernels have no scores yet.
        mask_cost: Config of the pixelwise mask cost.
        dice_cost: Config of the mask overlap cost.
        topk: Kernels that each object gets: the matching is repeated among those that are still free. Where they run
            out, the objects of the last round share what is left as the costs say.
        dtype: Type in which ``MaskCost`` and ``DiceCost`` multiply masks: ``'float32'``, or ``'bfloat16'``, which is
            cheaper where the device has it. All else is float32 in any case; in bfloat16 the costs deviate by up to
            0.024 times the sum of the two weights, so that nearly equal kernels may be matched the other way round.

    Raises:
        ValueError: If ``topk`` is not positive, or ``dtype`` neither, or bfloat16 with other mask costs.
    """

    def __init__(
            self,
            cls_cost: dict = dict(type='mmdet.FocalLossCost', weight=2.0),  # noqa: B006, never changed
            mask_cost: dict = dict(type='knet_plugin.MaskCost', weight=1.0),  # noqa: B006
            dice_cost: dict = dict(type='knet_plugin.DiceCost', weight=4.0),  # noqa: B006
            topk: int = 1,
            dtype: str = 'float32') -> None:
        if topk < 1:
            raise ValueError(f'topk must be positive, got topk={topk}')
        if dtype not in ('float32', 'bfloat16'):
            raise ValueError(f"dtype must be 'float32' or 'bfloat16', got dtype={dtype!r}")
        self.cls_cost = TASK_UTILS.build(cls_cost)
        self.mask_cost = TASK_UTILS.build(mask_cost)
        self.dice_cost = TASK_UTILS.build(dice_cost)
        others = [name for name, cost in (('mask_cost', self.mask_cost), ('dice_cost', self.dice_cost))
                  if type(cost) not in (MaskCost, DiceCost)]
        if dtype != 'float32' and others:
            raise ValueError(f'dtype={dtype!r} is for MaskCost and DiceCost only, but {others[0]} is a '
                             f'{type(getattr(self, others[0])).__name__}')
        self.topk = topk
        self.dtype = getattr(torch, dtype)

    @torch.no_grad()
    def assign(self, pred_instances: InstanceData, gt_instances: InstanceData, img_meta: dict | None = None,
               stage: str = 'the stage') -> AssignResult:
        """Match one image.

        Args:
            pred_instances: ``masks`` of N kernels, logits (N, h, w), and, unless it is the kernel head's, ``scores``,
                class logits (N, classes).
            gt_instances: ``masks`` of G objects, (G, h, w) in [0, 1], and ``labels``, (G,).
            img_meta: Its ``img_path`` is named in warnings.
            stage: Name of the stage, for warnings.

        Returns:
            ``gt_inds``, (N,): 0 is background, k the k-th object; ``labels``, (N,): -1 where background.
        """
        return self.assign_batch([pred_instances], [gt_instances], [img_meta or {}], stage)[0]

    @torch.no_grad()
    def assign_batch(self, pred_instances: Sequence[InstanceData], gt_instances: Sequence[InstanceData],
                     img_metas: Sequence[dict], stage: str = 'the stage') -> list[AssignResult]:
        """Match several images. Arguments as for ``assign``.

        Their costs travel to the CPU together, and so do the matches back.
        """
        costs = self._to_cpu([self.cost(pred, gt) for pred, gt in zip(pred_instances, gt_instances, strict=True)])
        _report_not_finite(costs, stage, img_metas)
        matches = []
        for cost in costs:
            kernels, objects = self._solve(np.nan_to_num(cost, nan=UNUSABLE, posinf=UNUSABLE, neginf=UNUSABLE))
            gt_inds = np.zeros(len(cost), dtype=np.int64)
            gt_inds[kernels] = objects + 1
            matches.append(gt_inds)
        on_device = torch.from_numpy(np.concatenate(matches)).to(gt_instances[0].labels.device)
        results = []
        for gt_inds, gt in zip(on_device.split([len(each) for each in matches]), gt_instances, strict=True):
            labels = torch.cat([gt.labels.new_full((1, ), -1), gt.labels])  # of the background, and of the objects
            results.append(AssignResult(len(gt.labels), gt_inds, None, labels[gt_inds]))
        return results

    def cost(self, pred_instances: InstanceData, gt_instances: InstanceData) -> Tensor:
        """Sum of the costs, (N, G), in float32 also under autocast: the sums over pixels leave float16's range."""
        with torch.autocast(pred_instances.masks.device.type, enabled=False):
            cost = self._mask_costs(pred_instances, gt_instances)
            if 'scores' in pred_instances:
                cost = cost + self.cls_cost(pred_instances, gt_instances)
        return cost

    def _mask_costs(self, pred_instances: InstanceData, gt_instances: InstanceData) -> Tensor:
        """Both mask costs, for which masks are compared once where both are K-Net's and see the same probabilities."""
        overlaps: dict[tuple, MaskOverlaps] = {}
        costs = []
        for cost in (self.mask_cost, self.dice_cost):
            if type(cost) not in (MaskCost, DiceCost):
                costs.append(cost(pred_instances, gt_instances))
                continue
            seen = cost.pred_act, cost.act_mode
            if seen not in overlaps:
                overlaps[seen] = MaskOverlaps(cost.activate(pred_instances.masks), gt_instances.masks, self.dtype)
            costs.append(cost.of_overlaps(overlaps[seen]))
        return costs[0] + costs[1]

    @staticmethod
    def _to_cpu(costs: list[Tensor]) -> list[np.ndarray]:
        """One transfer, hence one wait for the device, for all of them."""
        flat = torch.cat([cost.flatten() for cost in costs]).cpu().numpy()
        ends = np.cumsum([cost.numel() for cost in costs])
        return [part.reshape(cost.shape) for part, cost in zip(np.split(flat, ends[:-1]), costs, strict=True)]

    def _solve(self, cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Kernels and their objects, of all ``topk`` rounds."""
        free = np.arange(len(cost))
        kernels, objects = [], []
        for _ in range(self.topk):
            rows, columns = linear_sum_assignment(cost[free])
            kernels.append(free[rows])
            objects.append(columns)
            free = np.delete(free, rows)
        return np.concatenate(kernels), np.concatenate(objects)


def _report_not_finite(costs: Sequence[np.ndarray], stage: str, img_metas: Sequence[dict]) -> None:
    """Say where costs came from that the solver cannot take."""
    found = {img_meta.get('img_path') or 'an image without img_path': np.count_nonzero(~np.isfinite(cost))
             for cost, img_meta in zip(costs, img_metas, strict=True) if not np.isfinite(cost).all()}
    if found:
        print_log(f'matching costs of {stage} are not finite in ' + ', '.join(
            f'{path} ({count} pairs)' for path, count in found.items()) + '; those pairs are matched last',
            logger='current', level=logging.WARNING)
