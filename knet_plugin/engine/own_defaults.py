"""What a run on own data takes when nothing is said, from the images and the machine."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from knet_plugin.datasets.description import SPLITS, DataDescription

__all__ = ['default_iterations', 'default_loading', 'default_short_side', 'image_files']


def default_iterations(images: int, batch_size: int) -> int:
    """Iterations that show each image about 50 times: from 600 to 5,000, or to 1,000 without GPU, in hundreds."""
    most = 5000 if torch.cuda.is_available() else 1000
    return min(most, max(600, 100 * round(images / batch_size / 2)))


def default_short_side(description: DataDescription) -> int:
    """Short side of the training images: the median of some of them, in steps of 32, from 128 to 256 pixels."""
    import cv2

    files = image_files(description)
    sizes = [image.shape[:2] for file in files[::max(1, len(files) // 16)]
             if (image := cv2.imread(str(file), cv2.IMREAD_REDUCED_GRAYSCALE_8)) is not None]
    short = sorted(8 * min(size) for size in sizes)
    middle = short[len(short) // 2] if short else 256
    return min(256, max(128, round(middle / 32) * 32))


def image_files(description: DataDescription) -> list[Path]:
    """Training images of the data."""
    folder = description.root / 'images' / SPLITS[0]
    files = sorted(path for path in folder.rglob('*') if path.is_file())
    if not files:
        raise ValueError(f'{folder} holds no images: prepare the data again by knet data prepare')
    return files


def default_loading(images: int, model: str) -> tuple[int, int]:
    """Batch size and number of processes that load images, for the machine at hand."""
    large = model != 'small' and not torch.cuda.is_available()
    return min(images, 2 if large else 8), min(4, (os.cpu_count() or 1) // 2)
