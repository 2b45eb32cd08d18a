"""Finds images with NaN or infinite pixels before the model sees them."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import Tensor

from knet_plugin.registry import HOOKS

__all__ = ['FiniteInputHook', 'check_finite', 'image_name']


@HOOKS.register_module()
class FiniteInputHook(Hook):
    """Stops a training at a batch with NaN or infinite pixels and names the images; warns in validation and test.

    One such image turns all weights into NaN. Skipping the batch would not help: the forward pass already changes the
    statistics of batch norm, and other processes would wait for this one.
    """

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Check a training batch."""
        check_finite(*_images_and_samples(data_batch))

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Check a validation batch."""
        try:
            check_finite(*_images_and_samples(data_batch))
        except ValueError as error:
            print_log(f'{error}; predictions for these images are meaningless', 'current', logging.WARNING)

    before_test_iter = before_val_iter


def check_finite(images: Tensor | Sequence[Tensor], samples: Sequence[BaseDataElement]) -> None:
    """Refuse images with NaN or infinite pixels.

    Args:
        images: B images. Integers are not checked, nor are lists of views (test-time augmentation).
        samples: Their B data samples, for the names of the files.

    Raises:
        ValueError: Some images are not finite. The message names them and counts their bad pixels.
    """
    found = {i: image for i, image in enumerate(images) if isinstance(image, Tensor) and image.is_floating_point()}
    if not found:
        return
    counts = torch.stack([(~image.isfinite()).sum() for image in found.values()]).tolist()  # one GPU synchronisation
    bad = [f'{image_name(samples[i])} ({count})' for i, count in zip(found, counts, strict=True) if count]
    if bad:
        raise ValueError(f'images must be finite, got NaN or infinite values in {", ".join(bad)}')


def image_name(sample: BaseDataElement, field: str = 'img_path') -> str:
    """Return the file of a data sample, for messages."""
    return sample.metainfo.get(field) or f'an image without {field}'


def _images_and_samples(data_batch: Any) -> tuple[Sequence[Tensor], Sequence[BaseDataElement]]:
    """Return a batch of mmdet's or mmseg's data loaders; nothing for other kinds of batches."""
    if not isinstance(data_batch, dict):
        return [], []
    images, samples = data_batch.get('inputs', []), data_batch.get('data_samples')
    return images, samples or [BaseDataElement()] * len(images)
