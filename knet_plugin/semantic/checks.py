"""What is refused before it spoils a training: labels that no class has, and logits that are not numbers."""

from typing import Any

import torch
from torch import Tensor

from knet_plugin.engine.finite_inputs import image_name

__all__ = ['check_finite', 'check_labels']


def check_finite(logits: Tensor, batch_data_samples: list) -> None:
    """Refuse a step that would turn the weights into NaN; not in float16, where a gradient scaler skips it.

    Args:
        logits: Of the last stage, (B, N, H, W).
        batch_data_samples: mmseg's data samples.

    Raises:
        FloatingPointError: If logits are not finite; the message names the images.
    """
    if logits.dtype == torch.float16:
        return
    finite = logits.isfinite().flatten(1).all(dim=1).tolist()
    if broken := [image_name(batch_data_samples[i]) for i, fine in enumerate(finite) if not fine]:
        raise FloatingPointError(
            f'the logits of {", ".join(broken)} are not finite: an image has NaN or infinite pixels, or the training '
            'has diverged. Batch norm spreads one such image over its batch and keeps it in its running statistics, so '
            'go on from a checkpoint. FiniteInputHook names the image before that happens')


def check_labels(batch_data_samples: list, num_classes: int, out_channels: int, ignore_index: int) -> None:
    """Refuse labels that no class has, before they become an opaque index error or a CUDA assertion.

    Args:
        batch_data_samples: mmseg's data samples.
        num_classes: Labels are 0 .. ``num_classes`` - 1.
        out_channels: Of the head; a single one tells two classes, whatever ``num_classes`` is.
        ignore_index: Another label that is allowed.

    Raises:
        ValueError: If there are others, or a label map is not (1, H, W) or not of the size of its image.
    """
    labels = torch.stack(_label_maps(batch_data_samples))
    limit = max(num_classes, 2 if out_channels == 1 else 1)
    wrong = ((labels < 0) | (labels >= limit)) & (labels != ignore_index)
    if not wrong.any():
        return
    first = int(wrong.flatten(1).any(dim=1).nonzero()[0])
    path = image_name(batch_data_samples[first], 'seg_map_path')
    values = torch.unique(labels[first][wrong[first]]).tolist()[:10]
    raise ValueError(f'labels must be 0 .. {limit - 1} (num_classes={num_classes}) or '
                     f'ignore_index={ignore_index}, got {values} in {path}; should the data set have '
                     'reduce_zero_label?')


def _label_maps(batch_data_samples: list) -> list[Tensor]:
    """The label maps of a batch, each (1, H, W); losses would fail far away, or stretch the logits to fit."""
    maps = [sample.gt_sem_seg.data for sample in batch_data_samples]
    for labels, sample in zip(maps, batch_data_samples, strict=True):
        path = image_name(sample, 'seg_map_path')
        if labels.dim() != 3 or labels.shape[0] != 1:
            raise ValueError(f'a label map must be (1, height, width), got {tuple(labels.shape)} from {path}: is it an '
                             'image of colours?')
        expected = _padded_size(sample) or tuple(maps[0].shape[1:])
        if tuple(labels.shape[1:]) != expected:
            raise ValueError(f'a label map must have the size of its image, {expected} after padding, got '
                             f'{tuple(labels.shape[1:])} from {path}')
    return maps


def _padded_size(sample: Any) -> tuple[int, int] | None:
    """Height and width of an image as it is in the batch, if mmseg's data preprocessor has noted it."""
    if 'padding_size' not in sample.metainfo:
        return None
    (height, width), (left, right, top, bottom) = sample.img_shape[:2], sample.padding_size
    return int(height + top + bottom), int(width + left + right)
