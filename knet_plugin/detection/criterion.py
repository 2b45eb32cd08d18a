"""Matching and losses of the kernel head and the update stages (Section 3.2)."""

from collections.abc import Sequence

import torch
from mmcv.ops import point_sample
from mmdet.models.losses import accuracy
from mmdet.models.utils import get_uncertain_point_coords_with_randomness
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor

from knet_plugin.core import KernelUpdate
from knet_plugin.core.activation_checkpointing import checkpointed
from knet_plugin.core.feature_map import resize
from knet_plugin.detection.kernel_head import KernelProposals
from knet_plugin.detection.matcher import aligned_masks
from knet_plugin.detection.targets import (
    IGNORE_INDEX,
    Assignment,
    SegmentTargets,
    assign_stuff_kernels,
    rank_target,
    semantic_target,
)
from knet_plugin.registry import MODELS, TASK_UTILS

__all__ = ['KNetCriterion', 'mean_over_processes']

ROWS = 16  # rows of the semantic logits whose loss is computed at once


def mean_over_processes(counts: Tensor) -> Tensor:
    """Mean of (n,) counts over all processes, at least one item in total; all processes must call it together.

    If each process divides its summed loss by this mean, the average over the processes is the loss that one process
    with all images would compute.
    """
    return reduce_mean(counts.float()).clamp(min=1 / get_world_size())


@MODELS.register_module()
class KNetCriterion(BaseModule):
    """Bipartite matching, and losses on masks and classes.

    Each stage is matched to the objects by the predictions of the stage before it: the kernel head and stage 1 by M_0,
    stage i by masks and classes of stage i - 1. Stuff classes have fixed kernels.

    Mask and dice loss apply to matched kernels. In the rank loss, all masks of an image compete for each pixel. The
    class loss applies to all kernels; instance kernels ignore the stuff classes, and a stuff kernel all classes but its
    own.

    Args:
        num_things_classes: T; classes 0 .. T - 1 are things.
        num_stuff_classes: S; classes T .. T + S - 1 are stuff. The last S kernels of a stage belong to them.
        train_cfg: ``assigner``, the config of the ``MaskHungarianAssigner``; ``num_points``, the number of random
            points of each mask, mostly uncertain ones (PointRend, arXiv 1912.08193), to which mask and dice loss apply;
            and ``num_match_points``, the number of uniformly random points of an image at which the matching compares
            masks (Mask2Former, arXiv 2112.01527, Section 3.3). None for either: all pixels.
        loss_mask: Config of the loss on (P, h, w) mask logits and soft targets.
        loss_dice: Config of the overlap loss on the same.
        loss_cls: Config of the sigmoid loss on (B * N, classes) logits.
        loss_seg: Config of the sigmoid loss on the kernel head's (h * w, classes) semantic logits.
        loss_rank: Config of the softmax loss over the kernels of the published panoptic models. None: no such loss.
        ignore_void: Whether the semantic loss ignores unlabelled pixels. The official code makes them background.
        stage_loss_weights: Factors of the losses of stages 1 .. S. None: 1 each.
    """

    def __init__(
            self,
            num_things_classes: int = 80,
            num_stuff_classes: int = 0,
            train_cfg: dict | None = None,
            loss_mask: dict = dict(  # noqa: B006, never changed
                type='mmdet.CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
            loss_dice: dict = dict(type='mmdet.DiceLoss', loss_weight=4.0),  # noqa: B006
            loss_cls: dict = dict(  # noqa: B006
                type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
            loss_seg: dict = dict(  # noqa: B006
                type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
            loss_rank: dict | None = None,
            ignore_void: bool = True,
            stage_loss_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        train_cfg = dict(train_cfg or {})
        assigner = train_cfg.pop('assigner', None) or dict(type='knet_plugin.MaskHungarianAssigner')
        self.num_points = train_cfg.pop('num_points', None)
        self.num_match_points = train_cfg.pop('num_match_points', None)
        if train_cfg:
            raise ValueError(f'train_cfg has assigner, num_points and num_match_points only, got {sorted(train_cfg)}')
        self.num_things_classes = num_things_classes
        self.num_stuff_classes = num_stuff_classes
        self.num_classes = num_things_classes + num_stuff_classes
        self.assigner = TASK_UTILS.build(assigner)
        self.loss_mask = MODELS.build(loss_mask)
        self.loss_dice = MODELS.build(loss_dice)
        self.loss_cls = MODELS.build(loss_cls)
        self.loss_seg = MODELS.build(loss_seg)
        self.loss_rank = None if loss_rank is None else MODELS.build(loss_rank)
        self.ignore_void = ignore_void
        self.stage_loss_weights = stage_loss_weights

    def forward(self, proposals: KernelProposals, updates: Sequence[KernelUpdate], targets: SegmentTargets,
                pilots: Assignment | None = None) -> dict[str, Tensor]:
        """Losses of the kernel head (``s0.``) and of stage i (``s<i>.``); the keys do not depend on the images.

        If the updates have ``pilots`` after the kernels of the proposals, these are their objects, see ``MaskPilots``.
        """
        ordinary = updates if pilots is None else [each.first(proposals.mask_logits.shape[1]) for each in updates]
        assignments = self.assign(proposals, ordinary, targets)
        pairs = assignments if pilots is None else [*assignments, pilots]
        counts = torch.tensor([len(each.segments) for each in pairs], device=targets.labels.device)
        num_pairs = mean_over_processes(counts)
        num_kernels = proposals.mask_logits.shape[1] - self.num_stuff_classes
        losses = self.mask_losses(proposals.mask_logits[:, :num_kernels], assignments[0], targets, num_pairs[0])
        assert proposals.semantic_logits is not None
        losses['loss_seg'] = self.semantic_loss(proposals.semantic_logits, assignments[0], targets)
        losses = {f's0.{name}': value for name, value in losses.items()}
        weights = [1.] * len(updates) if self.stage_loss_weights is None else self.stage_loss_weights
        for i, (update, piloted, weight) in enumerate(zip(ordinary, updates, weights, strict=True), start=1):
            stage = self.mask_losses(update.mask_logits, assignments[i], targets, num_pairs[i])
            stage |= self.class_loss(update.class_logits, assignments[i], targets, num_pairs[i])
            if pilots is not None:
                stage |= self.pilot_losses(piloted, pilots, targets, num_pairs[-1])
            losses |= {f's{i}.{name}': value * weight if 'loss' in name else value for name, value in stage.items()}
        return losses

    def assign(self, proposals: KernelProposals, updates: Sequence[KernelUpdate],
               targets: SegmentTargets) -> list[Assignment]:
        """Assignments of the kernel head, which has no stuff, and of each stage: S + 1 in all."""
        num_kernels = proposals.mask_logits.shape[1] - self.num_stuff_classes
        stuff = assign_stuff_kernels(targets, self.num_things_classes, num_kernels)
        objects = self.match(proposals.mask_logits[:, :num_kernels], proposals.class_logits, targets)
        assignments = [objects]
        for i, update in enumerate(updates, start=1):
            assignments.append(objects + stuff)
            if i < len(updates):
                class_logits = update.class_logits[:, :num_kernels, :self.num_things_classes]
                objects = self.match(update.mask_logits[:, :num_kernels], class_logits, targets)
        return assignments

    @torch.no_grad()
    def match(self, mask_logits: Tensor, class_logits: Tensor | None, targets: SegmentTargets) -> Assignment:
        """Match instance kernels and objects by (B, N, H, W) mask logits and, if given, (B, N, T) class logits."""
        pairs = []
        for image in range(len(mask_logits)):
            objects = targets.objects_of(image)
            logits, masks = aligned_masks(mask_logits[image], targets.masks[objects], self.num_match_points)
            prediction, truth = InstanceData(masks=logits), InstanceData(masks=masks, labels=targets.labels[objects])
            if class_logits is not None:
                prediction.scores = class_logits[image].float()
            gt_inds = self.assigner.assign(prediction, truth).gt_inds
            kernels, = gt_inds.nonzero(as_tuple=True)
            pairs.append(Assignment(torch.full_like(kernels, image), kernels, objects.start + gt_inds[kernels] - 1))
        return Assignment(*(torch.cat(column) for column in zip(*pairs, strict=True)))

    # One map at the targets' size is as large as all that a stage keeps, so the losses use activation checkpointing.

    def mask_losses(self, mask_logits: Tensor, assignment: Assignment, targets: SegmentTargets,
                    num_pairs: Tensor) -> dict[str, Tensor]:
        """``loss_mask``, ``loss_dice`` and, if configured, ``loss_rank`` of one stage; zero if there are no pairs.

        (B, N, H, W) logits are resized to the targets' size. ``num_pairs`` is the mean over the processes, ().
        """
        loss_mask, loss_dice = self._pair_losses(mask_logits, assignment, targets, num_pairs)
        losses = dict(loss_mask=loss_mask, loss_dice=loss_dice)
        if self.loss_rank is not None and not len(assignment.segments):
            losses['loss_rank'] = loss_mask
        elif self.loss_rank is not None:
            ranks = [checkpointed(self._rank_loss, logits, target) for logits, target in zip(
                mask_logits.split(1), rank_target(assignment, targets).split(1), strict=True)]
            losses['loss_rank'] = torch.stack(ranks).mean()  # over all pixels, as the images have the same size
        return losses

    def pilot_losses(self, update: KernelUpdate, pilots: Assignment, targets: SegmentTargets,
                     num_pilots: Tensor) -> dict[str, Tensor]:
        """``loss_pilot_mask``, ``loss_pilot_dice``, ``loss_pilot_cls`` of one stage; zero if there are no objects."""
        loss_mask, loss_dice = self._pair_losses(update.mask_logits, pilots, targets, num_pilots)
        logits = update.class_logits[pilots.images, pilots.kernels, :self.num_things_classes].float()  # P, T
        loss_cls = logits.sum()  # zero, but connected
        if len(logits):
            loss_cls = self.loss_cls(logits, targets.labels[pilots.segments], avg_factor=num_pilots)
        return dict(loss_pilot_mask=loss_mask, loss_pilot_dice=loss_dice, loss_pilot_cls=loss_cls)

    def _pair_losses(self, mask_logits: Tensor, assignment: Assignment, targets: SegmentTargets,
                     num_pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Mask and dice loss of the pairs."""
        if not len(assignment.segments):  # zero, but connected to the logits
            zero = mask_logits[assignment.images, assignment.kernels].float().sum()
            return zero, zero
        loss_mask, loss_dice = checkpointed(self._matched_losses, mask_logits, assignment, targets)
        share = len(assignment.segments) / num_pairs
        return loss_mask * share, loss_dice * share

    def _matched_losses(self, mask_logits: Tensor, assignment: Assignment,
                        targets: SegmentTargets) -> tuple[Tensor, Tensor]:
        logits = mask_logits[assignment.images, assignment.kernels].float()  # P, H, W
        masks = targets.masks[assignment.segments]  # P, h, w
        if self.num_points is None:
            logits = resize(logits[None], masks.shape[-2:])[0]
        else:
            points = get_uncertain_point_coords_with_randomness(
                logits.detach()[:, None], None, self.num_points, oversample_ratio=3, importance_sample_ratio=0.75)
            logits, masks = (point_sample(maps[:, None], points)[:, 0] for maps in (logits, masks))  # P, num_points
        return self.loss_mask(logits, masks), self.loss_dice(logits, masks)

    def _rank_loss(self, mask_logits: Tensor, target: Tensor) -> Tensor:
        assert self.loss_rank is not None
        return self.loss_rank(resize(mask_logits.float(), target.shape[-2:]), target, ignore_index=IGNORE_INDEX)

    def class_loss(self, class_logits: Tensor, assignment: Assignment, targets: SegmentTargets,
                   num_pairs: Tensor) -> dict[str, Tensor]:
        """``loss_cls`` of one stage from (B, N, classes) logits, whose stuff kernels come last, and ``pos_acc``.

        ``pos_acc`` is the percentage of matched kernels whose highest logit is that of their class.
        """
        matched_labels = targets.labels[assignment.segments]
        labels = torch.full(class_logits.shape[:2], self.num_classes, device=class_logits.device)  # background
        labels[assignment.images, assignment.kernels] = matched_labels
        weights = class_logits.new_ones(class_logits.shape, dtype=torch.float32)
        if stuff := self.num_stuff_classes:
            weights[:, :-stuff, self.num_things_classes:] = 0
            weights[:, -stuff:] = 0
            weights[:, -stuff:, self.num_things_classes:].diagonal(dim1=1, dim2=2).fill_(1)
        loss = self.loss_cls(class_logits.flatten(0, 1).float(), labels.flatten(), weights.flatten(0, 1),
                             avg_factor=num_pairs)
        return dict(loss_cls=loss, pos_acc=accuracy(class_logits[assignment.images, assignment.kernels],
                                                    matched_labels))

    def semantic_loss(self, semantic_logits: Tensor, assignment: Assignment, targets: SegmentTargets) -> Tensor:
        """Loss of the kernel head's (B, classes, H, W) logits, averaged over the labelled foreground pixels."""
        labels = semantic_target(assignment, targets, self.num_classes, self.ignore_void)  # B, h, w
        valid = labels != IGNORE_INDEX
        labels = labels.masked_fill(~valid, self.num_classes)  # background, of weight 0
        foreground, = mean_over_processes((labels < self.num_classes).sum()[None])

        # In strips of rows, since a focal loss makes maps many times as large as the logits.
        def strip_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
            logits = logits.movedim(1, -1).flatten(0, 2)  # pixels, classes
            return self.loss_seg(logits, labels.flatten(), weights.flatten(), avg_factor=foreground)

        semantic_logits = resize(semantic_logits.float(), labels.shape[1:])
        strips = zip(semantic_logits.split(ROWS, dim=2), labels.split(ROWS, dim=1), valid.float().split(ROWS, dim=1),
                     strict=True)
        return torch.stack([checkpointed(strip_loss, *strip) for strip in strips]).sum()
