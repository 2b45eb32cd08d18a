"""The losses of K-Net's detection side, for the kernel head and for every update stage."""

from collections.abc import Iterator, Sequence

import torch
from mmcv.ops import point_sample
from mmdet.models.losses import accuracy
from mmdet.models.utils import get_uncertain_point_coords_with_randomness
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from mmengine.model import BaseModule
from torch import Tensor

from knet_plugin.core.mask_ops import resize
from knet_plugin.core.activation_checkpointing import checkpointed
from knet_plugin.detection.targets import IGNORED, Assignment, SegmentTargets, rank_target, semantic_target
from knet_plugin.registry import MODELS

__all__ = ['KNetCriterion', 'mean_counts', 'mean_owned']

PIXELS = 8192
"""Pixels whose semantic loss is computed at once, about."""


def mean_counts(counts: Tensor) -> Tensor:
    """What to divide by so that the mean of the processes' losses is the loss of one process with all their images.

    All processes have to call it together, whatever their images show.

    Args:
        counts: How much of everything this process has to average over, (n,) of any type.

    Returns:
        The mean over all processes, (n,), of a sum that counts as 1 where there is nothing at all.
    """
    return reduce_mean(counts.float()).clamp(min=1 / get_world_size())


def mean_owned(stages: Sequence[Assignment]) -> Tensor:
    """How many kernels own a segment in each stage, as ``mean_counts`` has it, (stages,)."""
    return mean_counts(torch.tensor([len(owned.segments) for owned in stages], device=stages[0].segments.device))


@MODELS.register_module()
class KNetCriterion(BaseModule):
    """Losses on the masks and classes of kernels, given which segment each of them owns.

    Mask and dice loss look at the owned segments alone. The rank loss lets all masks of an image compete for each
    pixel. A focal class loss teaches all kernels; thing kernels learn nothing about stuff classes, and a stuff kernel
    only whether its own class is there.

    Averages are over all processes: the mean of the processes' losses and gradients, which is what distributed training
    takes, is that of one process with all their images.

    Args:
        num_things_classes: Classes 0 .. T - 1.
        num_stuff_classes: Classes T .. T + S - 1; the last S kernels of a stage own one each.
        loss_mask: Config of the loss on (P, h, w) mask logits and soft targets.
        loss_dice: Config of the overlap loss on the same.
        loss_cls: Config of the sigmoid loss on (B * N, classes) logits.
        loss_seg: Config of the sigmoid loss on the kernel head's (B * h * w, classes) semantic logits.
        loss_rank: Config of the softmax loss over the kernels; the published panoptic models have it. None: none.
        ignore_void: Whether unlabelled pixels are left out of the semantic loss. The official code makes them
            background.
        num_points: Mask and dice loss look at so many points of each owned mask, most of them where it is uncertain, as
            in PointRend (arXiv 1912.08193) and Mask2Former; they are random, so losses differ from run to run. None:
            at all pixels, as the published models.

    Raises:
        ValueError: If ``num_points`` is not positive.
    """

    def __init__(
            self,
            num_things_classes: int = 80,
            num_stuff_classes: int = 0,
            loss_mask: dict = dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),  # noqa: B006
            loss_dice: dict = dict(type='mmdet.DiceLoss', loss_weight=4.0),  # noqa: B006
            loss_cls: dict = dict(  # noqa: B006
                type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
            loss_seg: dict = dict(  # noqa: B006
                type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
            loss_rank: dict | None = None,
            ignore_void: bool = True,
            num_points: int | None = None) -> None:
        super().__init__()
        if num_points is not None and num_points < 1:
            raise ValueError(f'num_points must be positive or None, got num_points={num_points}')
        self.num_points = num_points
        self.num_things_classes = num_things_classes
        self.num_stuff_classes = num_stuff_classes
        self.num_classes = num_things_classes + num_stuff_classes
        self.ignore_void = ignore_void
        self.loss_mask = MODELS.build(loss_mask)
        self.loss_dice = MODELS.build(loss_dice)
        self.loss_cls = MODELS.build(loss_cls)
        self.loss_seg = MODELS.build(loss_seg)
        self.loss_rank = None if loss_rank is None else MODELS.build(loss_rank)

    def masks(self, mask_logits: Tensor, owned: Assignment, targets: SegmentTargets,
              num_owned: Tensor) -> dict[str, Tensor]:
        """Losses of one stage's masks, which are brought to the size of the targets.

        Args:
            mask_logits: (B, N, H, W).
            owned: Which of these kernels owns which segment.
            targets: The segments of the batch, at h x w.
            num_owned: What ``mean_owned`` counts for this stage, ().

        Returns:
            ``loss_mask``, ``loss_dice`` and, if configured, ``loss_rank``: always the same keys. Zero (and connected to
            the logits) where no kernel of the whole batch owns a segment.
        """
        if not len(owned.segments):
            zero = mask_logits[owned.images, owned.kernels].float().sum()
            losses = dict(loss_mask=zero, loss_dice=zero)
            return losses if self.loss_rank is None else dict(losses, loss_rank=zero)
        share = len(owned.segments) / num_owned
        losses = {name: loss * share
                  for name, loss in checkpointed(self._owned_masks, mask_logits, owned, targets).items()}
        if self.loss_rank is not None:
            # Image by image; the mean over all pixels is the mean of their means, as all have the same size.
            ranks = [checkpointed(self._rank, logits, target, self.loss_rank) for logits, target in zip(
                mask_logits.split(1), rank_target(owned, targets).split(1), strict=True)]
            losses['loss_rank'] = torch.stack(ranks).mean()
        return losses

    # What follows works at the size of the targets, where a stage's masks alone are as large as all that the stage
    # itself keeps for the backward pass.

    def _owned_masks(self, mask_logits: Tensor, owned: Assignment, targets: SegmentTargets) -> dict[str, Tensor]:
        logits = mask_logits[owned.images, owned.kernels].float()  # P, H, W
        masks = targets.masks[owned.segments]  # P, h, w
        if self.num_points is None:
            logits = resize(logits[None], masks.shape[-2:])[0]
        else:
            with torch.no_grad():
                points = get_uncertain_point_coords_with_randomness(
                    logits[:, None], None, self.num_points, oversample_ratio=3, importance_sample_ratio=0.75)
            logits, masks = (point_sample(maps[:, None], points)[:, 0] for maps in (logits, masks))  # P, points
        return dict(loss_mask=self.loss_mask(logits, masks), loss_dice=self.loss_dice(logits, masks))

    @staticmethod
    def _rank(mask_logits: Tensor, target: Tensor, loss: torch.nn.Module) -> Tensor:
        return loss(resize(mask_logits.float(), target.shape[-2:]), target, ignore_index=IGNORED)

    def _semantics(self, logits: Tensor, height: int, kept: slice, labels: Tensor, weights: Tensor | None,
                   positives: Tensor) -> Tensor:
        logits = resize(logits[None].float(), (height, labels.shape[1]))[0, :, kept]  # classes, rows, w
        return self.loss_seg(logits.flatten(1).T, labels.flatten(), None if weights is None else weights.flatten(),
                             avg_factor=positives)

    def classes(self, class_logits: Tensor, owned: Assignment, targets: SegmentTargets,
                num_owned: Tensor) -> dict[str, Tensor]:
        """Loss of one stage's classes, of all kernels, divided by the number of owning ones.

        Args:
            class_logits: (B, N, classes), stuff kernels last.
            owned: Which of these kernels owns which segment, stuff included.
            targets: The segments of the batch.
            num_owned: What ``mean_owned`` counts for this stage, ().

        Returns:
            ``loss_cls``, and as a metric ``pos_acc``, the percentage of owning kernels whose class is right.
        """
        owned_labels = targets.labels[owned.segments]
        labels = torch.full(class_logits.shape[:2], self.num_classes, device=class_logits.device)  # background
        labels[owned.images, owned.kernels] = owned_labels
        weights = self._class_weights(class_logits)
        loss = self.loss_cls(class_logits.flatten(0, 1).float(), labels.flatten(), weights, avg_factor=num_owned)
        return dict(loss_cls=loss, pos_acc=accuracy(class_logits[owned.images, owned.kernels], owned_labels))

    def _class_weights(self, class_logits: Tensor) -> Tensor | None:
        """Which column teaches which kernel, (B * N, classes) of 0 and 1; None where all do."""
        if not self.num_stuff_classes:
            return None
        batch, num_kernels, _ = class_logits.shape
        weights = class_logits.new_zeros(num_kernels, self.num_classes, dtype=torch.float32)
        weights[:-self.num_stuff_classes, :self.num_things_classes] = 1
        weights[-self.num_stuff_classes:, self.num_things_classes:].fill_diagonal_(1)
        return weights.expand(batch, -1, -1).flatten(0, 1)

    def semantics(self, semantic_logits: Tensor, owned: Assignment, targets: SegmentTargets) -> dict[str, Tensor]:
        """Loss of the kernel head's dense logits, averaged over the labelled foreground pixels.

        Args:
            semantic_logits: (B, classes, H, W).
            owned: Which instance kernel owns which object: objects are painted in the order of their kernels.
            targets: The segments of the batch, at h x w.

        Returns:
            ``loss_seg``.
        """
        labels = semantic_target(owned, targets, self.num_classes, self.ignore_void)
        valid = labels != IGNORED
        foreground, = mean_counts((valid & (labels < self.num_classes)).sum()[None])
        weights = None if targets.void is None or not self.ignore_void else valid.float()
        labels = labels.masked_fill(~valid, self.num_classes)
        # In parts: what a focal loss makes on the way is many times as large as the logits. Those are enlarged part by
        # part, too, so that no larger logits are kept for the backward pass.
        total = semantic_logits.new_zeros((), dtype=torch.float32)
        # Unbound first, since the gradient of every slice is brought to the size of what it was cut from.
        for image, logits in enumerate(semantic_logits.unbind()):
            for source, height, kept, rows in _strips(semantic_logits.shape[2], labels.shape[1:]):
                total = total + checkpointed(self._semantics, logits[:, source], height, kept, labels[image, rows],
                                          None if weights is None else weights[image, rows], foreground)
        return dict(loss_seg=total)


def _strips(height: int, size: Sequence[int]) -> Iterator[tuple[slice, int, slice, slice]]:
    """How to bring a map to a size in strips of about ``PIXELS`` pixels.

    Args:
        height: Rows of the map.
        size: Height and width that it is brought to.

    Yields:
        Which rows of the map to resize and to which height, which rows of the result to keep, and where they belong. It
        is one strip if the height is not a multiple of the map's.
    """
    factor, rest = divmod(size[0], height)
    if rest:
        yield slice(0, height), size[0], slice(0, size[0]), slice(0, size[0])
        return
    step = max(PIXELS // (factor * size[1]), 1)
    for start in range(0, height, step):
        stop = min(start + step, height)
        top, bottom = max(start - 1, 0), min(stop + 1, height)  # a row is mixed with the ones beside it
        yield (slice(top, bottom), factor * (bottom - top), slice(factor * (start - top), factor * (stop - top)),
               slice(factor * start, factor * stop))
