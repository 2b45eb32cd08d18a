"""Finds images with NaN or infinite pixels before the model sees them."""

import logging
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import Tensor

from knet_plugin.core.image_name import image_name
from knet_plugin.registry import HOOKS

__all__ = ['FiniteInputHook']


@HOOKS.register_module()
class FiniteInputHook(Hook):
    """Stops a training at a batch with NaN or infinite pixels and names the images; warns in validation and test.

    One such image turns all weights into NaN. Skipping the batch would not help: the forward pass already changes the
    statistics of batch norm, and other processes would wait for this one.
    """

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Check a training batch."""
        _check(data_batch)

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Check a validation batch."""
        try:
            _check(data_batch)
        except ValueError as error:
            print_log(f'{error}; predictions for these images are meaningless', 'current', logging.WARNING)

    before_test_iter = before_val_iter


def _check(data_batch: Any) -> None:
    """Raise a ``ValueError`` that names the images with NaN or infinite values, and their number in each.

    Integer images, views of test-time augmentation, and batches of hosts other than mmdet and mmseg are not checked.
    """
    if not isinstance(data_batch, dict):
        return
    images = {i: image for i, image in enumerate(data_batch.get('inputs', []))
              if isinstance(image, Tensor) and image.is_floating_point()}
    if not images:
        return
    counts = torch.stack([(~image.isfinite()).sum() for image in images.values()]).tolist()  # one GPU synchronisation
    samples = data_batch.get('data_samples') or [BaseDataElement()] * len(data_batch['inputs'])
    bad = [f'{image_name(samples[i])} ({count})' for i, count in zip(images, counts, strict=True) if count]
    if bad:
        raise ValueError(f'images must be finite, got NaN or infinite values in {", ".join(bad)}')
