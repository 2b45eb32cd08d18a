"""Images and masks on disk: listing and pixel values."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from knet_plugin.datasets.image_files import UNREADABLE, explain, open_image
from knet_plugin.datasets.names import IMAGE_SUFFIXES, JPEG_SUFFIXES, first_few

__all__ = ['list_files', 'other_files', 'read_map', 'read_pixels']

_NO_PICTURES = {'', '.json', '.txt', '.xml', '.yaml', '.yml', '.csv', '.md', '.db', '.ini', '.cache', '.zip'}
_MOST_COLOURS = 256  # of a mask; more is a photo


def list_files(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> list[PurePosixPath]:
    """Return the sorted paths, relative to ``folder`` and at any depth, of its files that are not hidden."""
    found = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith(('.', '__MACOSX')))
        relative = Path(parent).relative_to(folder)
        found += [PurePosixPath((relative / name).as_posix()) for name in files
                  if name.lower().endswith(suffixes) and not name.startswith('.')]
    return sorted(found)


def other_files(folder: Path) -> str:
    """Return what to add to a message about missing images: the files that may be some, but are not read."""
    counts = Counter(name.suffix.lower() for name in list_files(folder, ('',)))
    ignored = [f'{count} {suffix}' for suffix, count in counts.most_common()
               if suffix not in (*IMAGE_SUFFIXES, *_NO_PICTURES)]
    return f' (files there that are not read: {first_few(ignored, 5)}; save them as PNG or JPEG)' if ignored else ''


def read_pixels(path: Path) -> np.ndarray:
    """Read a PNG or another image without loss as int64: (H, W) values or palette indices, or (H, W, C) colours.

    Raises:
        ValueError: The file cannot be decoded, or was compressed with loss.
    """
    if path.suffix.lower() in JPEG_SUFFIXES:
        raise ValueError(f'{path}: JPEG changes the values of a mask; save masks as PNG')
    try:
        with open_image(path) as image:
            if image.mode in ('CMYK', 'YCbCr', 'LAB', 'HSV', 'F'):
                raise ValueError(f'values of mode {image.mode} are no labels')
            if len(image.getbands()) > 1 and any(';16' in str(tile) for tile in getattr(image, 'tile', ())):
                return _sixteen_bits(path)
            return np.asarray(image).astype(np.int64)
    except UNREADABLE as error:
        raise ValueError(f'{path}: the mask cannot be read ({explain(error)})') from None


def _sixteen_bits(path: Path) -> np.ndarray:
    """Read (H, W, 3) colours of 16 bits, of which PIL keeps the upper 8; those that were scaled from 8 bits as such."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ValueError('OpenCV cannot decode it')
    colours = pixels[..., 2::-1].astype(np.int64)
    if (colours == colours[..., :1]).all() or colours.max() < 256:
        return colours
    if (colours % 257).any():
        raise ValueError('colours of 16 bits are above 255; save it with 8 bits')
    return colours // 257


def read_map(path: Path) -> tuple[np.ndarray, bool]:
    """Read a mask or label map as ``read_pixels`` does.

    Transparent pixels are 0, the background. A photo that is transparent around an object, or an image of one colour,
    has its mask in the alpha channel.

    Returns:
        (H, W) int64 values, and whether they are colours: 65536 R + 256 G + B.
    """
    pixels = read_pixels(path)
    if pixels.ndim == 2:
        return pixels, False
    alpha = pixels[..., -1] if pixels.shape[2] in (2, 4) else None
    colours = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1]
    grey = bool((colours == colours[..., :1]).all())
    values = colours[..., 0] if grey else colours @ np.array([65536, 256, 1])
    if alpha is None or alpha.min() == alpha.max():
        return values, not grey
    if not 1 < np.unique(values).size <= _MOST_COLOURS:
        return (alpha > alpha.max() // 2).astype(np.int64), False
    return np.where(alpha, values, 0), not grey
