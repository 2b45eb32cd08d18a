"""Images with NaN or infinite pixels: found before the model sees them, and named."""

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
    """Stops a training before a batch with NaN or infinite pixels, with the names of the images.

    One such image turns all weights into NaN. Leaving out the step is no way out: the forward pass alone would write
    into the running statistics of batch norm, and the other processes of a distributed run would wait. Validations and
    tests go on with a warning: predictions of the other images are what they would be without it.

    Images of 8 bits, which loaders make unless told otherwise, are not looked at. ``tools/train.py`` and
    ``tools/test.py`` add the hook to every config.

    Raises:
        ValueError: Before the step, see :func:`check_finite`.
    """

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Check a batch of the training."""
        check_finite(*_images_and_samples(data_batch))

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Check a batch of the validation."""
        _warn(data_batch)

    def before_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Check a batch of the test."""
        _warn(data_batch)


def check_finite(images: Tensor | Sequence[Tensor], samples: Sequence[BaseDataElement]) -> None:
    """Refuse NaN and infinite pixels. It waits for the device of the images, if they are floating point numbers.

    Args:
        images: B images; those of integers are not looked at.
        samples: Their data samples, whose ``img_path`` is named.

    Raises:
        ValueError: There are such; the message says in which images and how many.
    """
    if problem := _problem(images, samples):
        raise ValueError(f'{problem}: look for what makes them in the files or in the transforms of the pipeline')


def image_name(sample: BaseDataElement, field: str = 'img_path') -> str:
    """File of a data sample, for messages."""
    return sample.metainfo.get(field) or f'an image without {field}'


def _problem(images: Tensor | Sequence[Tensor], samples: Sequence[BaseDataElement]) -> str | None:
    """Which images are not finite, if any are not."""
    # Of a test-time augmentation, an image is a list of several.
    found = {i: image for i, image in enumerate(images) if isinstance(image, Tensor) and image.is_floating_point()}
    if not found:
        return None
    finite = torch.stack([image.isfinite().all() for image in found.values()]).tolist()  # one wait for all
    counts = {i: int((~image.isfinite()).sum())
              for (i, image), fine in zip(found.items(), finite, strict=True) if not fine}
    if not counts:
        return None
    return 'the images must be finite, got NaN or infinite values in ' + ', '.join(
        f'{image_name(samples[i])} ({count})' for i, count in counts.items())


def _warn(data_batch: Any) -> None:
    if problem := _problem(*_images_and_samples(data_batch)):
        print_log(f'{problem}; what is predicted there means nothing', logger='current', level=logging.WARNING)


def _images_and_samples(data_batch: Any) -> tuple[Sequence[Tensor], Sequence[BaseDataElement]]:
    """What a data loader of the hosts yields; nothing of one that yields anything else."""
    if not isinstance(data_batch, dict):
        return [], []
    images, samples = data_batch.get('inputs', []), data_batch.get('data_samples')
    return images, samples or [BaseDataElement()] * len(images)
