"""Names of image files, and how messages list names."""

from collections.abc import Sequence
from typing import Any

__all__ = ['IMAGE_SUFFIXES', 'JPEG_SUFFIXES', 'first_few']

JPEG_SUFFIXES = ('.jpg', '.jpeg', '.jfif')
IMAGE_SUFFIXES = (*JPEG_SUFFIXES, '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm')


def first_few(names: Sequence[Any], most: int = 3) -> str:
    """Return the first names, and how many there are more: 'a, b, c and 5 more'."""
    shown = ', '.join(map(str, names[:most]))
    return shown if len(names) <= most else f'{shown} and {len(names) - most} more'
