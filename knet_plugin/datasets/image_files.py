"""Image files: what their headers say, without or with a look at their pixels."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

__all__ = ['UNREADABLE', 'Header', 'explain', 'open_image', 'read_header', 'read_values']

UNREADABLE = (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError)  # of PIL
_ORIENTATION = 0x0112  # EXIF tag
_MOST_PIXELS = 2 ** 30  # of an image that OpenCV reads
_JPEG_SIDE = 256  # side to which a JPEG is reduced when only its integrity matters
_CHANNELS = {'1': 1, 'L': 1, 'LA': 4, 'PA': 4, 'RGBA': 4}  # by Pillow's mode, as OpenCV reads it; all others: 3


@dataclass(frozen=True)
class Header:
    """An image as the hosts load it.

    Attributes:
        size: Height and width, turned as EXIF data say.
        orientation: EXIF orientation: 1 is upright, 5 to 8 exchange rows and columns.
        bits: Of a value.
        channels: Number of channels.
    """

    size: tuple[int, int]
    orientation: int
    bits: int
    channels: int


def read_header(path: str | os.PathLike[str], decode: bool = False) -> Header:
    """Read the header of an image.

    Args:
        path: The file.
        decode: Also decode the pixels, because a file that is cut must not stop a training; JPEG only coarsely, which
            is faster.

    Raises:
        ValueError: It cannot be decoded.
    """
    try:
        with open_image(path) as image:
            mode, (width, height) = image.mode, image.size
            tiles = getattr(image, 'tile', ())
            how = int(image.getexif().get(_ORIENTATION, 1))
            if decode:
                image.draft(mode, (_JPEG_SIDE, _JPEG_SIDE))
                image.load()
    except Exception as error:  # PIL has many for broken files
        # OpenCV reads TIFF files of more channels and other types.
        pixels = read_values(path) if isinstance(error, UnidentifiedImageError) else None
        if pixels is None:
            raise ValueError(f'{path}: the image cannot be read ({explain(error)}); replace or remove it') from None
        return Header(pixels.shape[:2], 1, 8 * pixels.itemsize, 1 if pixels.ndim == 2 else pixels.shape[2])
    size = (width, height) if how >= 5 else (height, width)
    if mode[0] in 'IF' or any(';16' in str(tile) for tile in tiles):
        return Header(size, how, 32 if mode == 'F' else 16, 1 if mode[0] in 'IF' else _CHANNELS.get(mode, 3))
    return Header(size, how, 8, _CHANNELS.get(mode, 3))


@contextlib.contextmanager
def open_image(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Open an image with PIL, which takes more than 179 million pixels for an attack unless told otherwise."""
    most = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = _MOST_PIXELS
    try:
        with Image.open(path) as image:
            yield image
    finally:
        Image.MAX_IMAGE_PIXELS = most


def read_values(path: str | os.PathLike[str]) -> np.ndarray | None:
    """Read an image of any depth with OpenCV; None if that is impossible."""
    content = np.fromfile(path, np.uint8)
    return cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None


def explain(error: Exception) -> str:
    """What PIL says, without the path that it repeats."""
    return 'no known image format' if isinstance(error, UnidentifiedImageError) else str(error)
