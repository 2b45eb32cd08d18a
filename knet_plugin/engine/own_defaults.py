"""What a run on own data takes when nothing is said, from the images and the machine."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from pathlib import Path

import torch

from knet_plugin.datasets.description import SPLITS, DataDescription

__all__ = ['default_iterations', 'default_kernels', 'default_loading', 'default_short_side', 'image_files',
           'small_objects']

_CPU_SIDE = 192  # pixels; 256 take almost twice the time
_OBJECT = 24  # pixels that the middle object should have across


def default_iterations(images: int, batch_size: int) -> int:
    """Return iterations that show each image about 50 times: 600 to 5,000, or to 1,000 without GPU, in hundreds."""
    most = 5000 if torch.cuda.is_available() else 1000
    return min(most, max(600, 100 * round(images / batch_size / 2)))


def default_short_side(description: DataDescription, task: str) -> int:
    """Return the short side of the training images: the median of some, in steps of 32, from 128 to 256 pixels.

    Without GPU it is at most 192 pixels, unless half of the objects would be smaller than 24 pixels.
    """
    import cv2

    files = image_files(description)
    sizes = [image.shape[:2] for file in files[::max(1, len(files) // 16)]
             if (image := cv2.imread(str(file), cv2.IMREAD_REDUCED_GRAYSCALE_8)) is not None]
    short = sorted(8 * min(size) for size in sizes)
    middle = short[len(short) // 2] if short else 256
    large = torch.cuda.is_available() or task == 'semantic' or small_objects(description)
    return min(256 if large else _CPU_SIDE, max(128, round(middle / 32) * 32))


def default_kernels(description: DataDescription) -> int:
    """Return a number of kernels: a quarter more than 95 % of the images have objects, in tens, from 30 to 150."""
    annotations = _annotations(description)['annotations']
    numbers = sorted(Counter(each['image_id'] for each in annotations).values())
    most = numbers[int(0.95 * len(numbers))] if numbers else 0
    return min(150, max(30, 10 * math.ceil(1.25 * most / 10)))


def small_objects(description: DataDescription) -> bool:
    """Whether half of the objects would be smaller than 24 pixels across if the short side had 192."""
    data = _annotations(description)
    sides = {image['id']: min(image['height'], image['width']) for image in data['images']}
    sizes = sorted(math.sqrt(each['area']) / sides[each['image_id']] for each in data['annotations'])
    return bool(sizes) and sizes[len(sizes) // 2] * _CPU_SIDE < _OBJECT


def _annotations(description: DataDescription) -> dict:
    """Return the objects of the training images in COCO's format, none if there is no such file."""
    file = description.root / f'annotations/instances_{SPLITS[0]}.json'
    return json.loads(file.read_text()) if file.is_file() else dict(images=[], annotations=[])


def image_files(description: DataDescription) -> list[Path]:
    """Return the training images."""
    folder = description.root / 'images' / SPLITS[0]
    files = sorted(path for path in folder.rglob('*') if path.is_file())
    if not files:
        raise ValueError(f'{folder} holds no images: prepare the data again by knet data prepare')
    return files


def default_loading(images: int, model: str) -> tuple[int, int]:
    """Return batch size and number of processes that load images, for this machine.

    Without GPU the batch is small, because a short training needs iterations more than images.
    """
    batch_size = 8 if torch.cuda.is_available() else 4 if model == 'small' else 2
    return min(images, batch_size), min(4, (os.cpu_count() or 1) // 2)
