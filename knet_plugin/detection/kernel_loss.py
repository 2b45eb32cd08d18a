"""The losses of K-Net's detection side, for the kernel head and for every update stage."""

import torch
from mmdet.models.losses import accuracy
from mmdet.utils import reduce_mean
from mmengine.model import BaseModule
from torch import Tensor

from knet_plugin.detection.targets import IGNORED, OwnedSegments, SegmentTargets, rank_target, semantic_target
from knet_plugin.registry import MODELS

__all__ = ['KernelLoss']


@MODELS.register_module()
class KernelLoss(BaseModule):
    """Losses on the masks and classes of kernels, given which segment each of them owns.

    Mask and dice loss look at the owned segments alone. The rank loss lets all masks of an image compete for each
    pixel. A focal class loss teaches all kernels; thing kernels learn nothing about stuff classes, and a stuff kernel
    only whether its own class is there.

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
            ignore_void: bool = True) -> None:
        super().__init__()
        self.num_things_classes = num_things_classes
        self.num_stuff_classes = num_stuff_classes
        self.num_classes = num_things_classes + num_stuff_classes
        self.ignore_void = ignore_void
        self.loss_mask = MODELS.build(loss_mask)
        self.loss_dice = MODELS.build(loss_dice)
        self.loss_cls = MODELS.build(loss_cls)
        self.loss_seg = MODELS.build(loss_seg)
        self.loss_rank = None if loss_rank is None else MODELS.build(loss_rank)

    def masks(self, mask_logits: Tensor, owned: OwnedSegments, targets: SegmentTargets) -> dict[str, Tensor]:
        """Losses of one stage's masks.

        Args:
            mask_logits: (B, N, h, w).
            owned: Which of these kernels owns which segment.
            targets: The segments of the batch, at h x w.

        Returns:
            ``loss_mask``, ``loss_dice`` and, if configured, ``loss_rank``: always the same keys. Zero (and connected to
            the logits) where no kernel of the whole batch owns a segment.
        """
        logits = mask_logits[owned.images, owned.kernels].float()  # P, h, w
        if not len(logits):
            zero = logits.sum()
            losses = dict(loss_mask=zero, loss_dice=zero)
            return losses if self.loss_rank is None else dict(losses, loss_rank=zero)
        masks = targets.masks[owned.segments]
        losses = dict(loss_mask=self.loss_mask(logits, masks), loss_dice=self.loss_dice(logits, masks))
        if self.loss_rank is not None:
            losses['loss_rank'] = self.loss_rank(mask_logits.float(), rank_target(owned, targets), ignore_index=IGNORED)
        return losses

    def classes(self, class_logits: Tensor, owned: OwnedSegments, targets: SegmentTargets) -> dict[str, Tensor]:
        """Loss of one stage's classes, averaged over the owning kernels of all processes.

        Args:
            class_logits: (B, N, classes), stuff kernels last.
            owned: Which of these kernels owns which segment, stuff included.
            targets: The segments of the batch.

        Returns:
            ``loss_cls``, and as a metric ``pos_acc``, the percentage of owning kernels whose class is right.
        """
        owned_labels = targets.labels[owned.segments]
        labels = torch.full(class_logits.shape[:2], self.num_classes, device=class_logits.device)  # background
        labels[owned.images, owned.kernels] = owned_labels
        num_owned = reduce_mean(class_logits.new_tensor(float(len(owned_labels)), dtype=torch.float32)).clamp(min=1)
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

    def semantics(self, semantic_logits: Tensor, owned: OwnedSegments, targets: SegmentTargets) -> dict[str, Tensor]:
        """Loss of the kernel head's dense logits, averaged over the labelled foreground pixels.

        Args:
            semantic_logits: (B, classes, h, w).
            owned: Which instance kernel owns which object: objects are painted in the order of their kernels.
            targets: The segments of the batch, at h x w.

        Returns:
            ``loss_seg``.
        """
        labels = semantic_target(owned, targets, self.num_classes, self.ignore_void).flatten()
        logits = semantic_logits.flatten(2).transpose(1, 2).flatten(0, 1).float()  # B h w, classes
        valid = labels != IGNORED
        foreground = (valid & (labels < self.num_classes)).sum().clamp(min=1)
        weights = None if targets.void is None or not self.ignore_void else valid.float()
        labels = labels.masked_fill(~valid, self.num_classes)
        return dict(loss_seg=self.loss_seg(logits, labels, weights, avg_factor=foreground))
