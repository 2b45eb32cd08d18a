"""Checks of heads and label maps that would otherwise learn nothing, or end in an index error or a CUDA assertion."""

from typing import Any

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import OhemCrossEntropy

from knet_plugin.core.image_name import image_name

__all__ = ['check_labels', 'check_losses']


def check_losses(head: BaseDecodeHead) -> None:
    """Refuse a softmax over a single output, whose probability is 1 whatever the head learns.

    Raises:
        ValueError: The head has one output, and a loss with ``use_sigmoid=False``.
    """
    if head.out_channels != 1:
        return
    losses = head.loss_decode if isinstance(head.loss_decode, torch.nn.ModuleList) else [head.loss_decode]
    for loss in losses:
        if not getattr(loss, 'use_sigmoid', not isinstance(loss, OhemCrossEntropy)):
            raise ValueError(f'{type(head).__name__} has num_classes={head.num_classes} and one output, for which the '
                             f'softmax of {type(loss).__name__} is always 1: use num_classes=2, out_channels=1 and '
                             'loss_decode=dict(type=\'CrossEntropyLoss\', use_sigmoid=True)')


def check_labels(samples: list, head: BaseDecodeHead) -> None:
    """Refuse label maps of a wrong shape and labels without a class.

    A label map has the shape (1, H, W) of its image. Labels are 0 .. ``num_classes`` - 1 (0 and 1 if the head has a
    single output) and ``ignore_index``.

    Raises:
        ValueError: If a label map has another shape, or a label is none of these.
    """
    for sample in samples:
        shape, expected = tuple(sample.gt_sem_seg.data.shape), (1, *_padded_size(sample, samples[0]))
        if shape != expected:
            raise ValueError(f'label maps must have the shape (1, height, width) of their image, {expected} with '
                             f'padding, got {shape} from {image_name(sample, "seg_map_path")}')
    labels = torch.stack([sample.gt_sem_seg.data for sample in samples])
    limit = 2 if head.out_channels == 1 else head.num_classes
    wrong = ((labels < 0) | (labels >= limit)) & (labels != head.ignore_index)
    if wrong.any():
        first = int(wrong.flatten(1).any(dim=1).nonzero()[0])
        values = torch.unique(labels[first][wrong[first]]).tolist()[:10]
        raise ValueError(f'labels must be 0 .. {limit - 1} (num_classes={head.num_classes}) or '
                         f'ignore_index={head.ignore_index}, got {values} in '
                         f'{image_name(samples[first], "seg_map_path")}; does the data set need reduce_zero_label?')


def _padded_size(sample: Any, first: Any) -> tuple[int, int]:
    """Height and width of an image in the batch; those of the first label map where the preprocessor notes none."""
    if 'padding_size' not in sample.metainfo:
        return tuple(first.gt_sem_seg.data.shape[-2:])
    (height, width), (left, right, top, bottom) = sample.img_shape[:2], sample.padding_size
    return int(height + top + bottom), int(width + left + right)
