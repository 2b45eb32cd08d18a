"""Images and masks on disk: listing, sizes, pixel values."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from knet_plugin.datasets.names import IMAGE_SUFFIXES, JPEG_SUFFIXES, first_few

__all__ = ['image_size', 'list_files', 'orientation', 'other_files', 'read_map', 'read_pixels']

_NO_PICTURES = {'', '.json', '.txt', '.xml', '.yaml', '.yml', '.csv', '.md', '.db', '.ini', '.cache', '.zip'}
_ORIENTATION = 0x0112  # EXIF tag
_MOST_PIXELS = 2 ** 30  # of an image that OpenCV reads
_MOST_COLOURS = 256  # of a mask; more is a photo
_JPEG_SIDE = 256  # side to which a JPEG is reduced when only its integrity matters
_UNREADABLE = (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError)  # of PIL


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


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Image.Image]:
    """Open an image with PIL, which takes more than 179 million pixels for an attack unless told otherwise."""
    most = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = _MOST_PIXELS
    try:
        with Image.open(path) as image:
            yield image
    finally:
        Image.MAX_IMAGE_PIXELS = most


def image_size(path: Path, decode: bool = True) -> tuple[int, int]:
    """Return (height, width) of an image as the hosts load it: turned as its EXIF data says.

    Args:
        path: The file.
        decode: Also decode the pixels, because a file that is cut must not stop a training; JPEG only coarsely, which
            is faster.

    Raises:
        ValueError: It cannot be decoded.
    """
    try:
        with _open(path) as image:
            width, height = image.size
            is_turned = image.getexif().get(_ORIENTATION, 1) >= 5
            if decode:
                image.draft(image.mode, (_JPEG_SIDE, _JPEG_SIDE))
                image.load()
    except _UNREADABLE as error:
        pixels = None
        if isinstance(error, UnidentifiedImageError):  # OpenCV reads TIFF files of more channels and other types
            pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise ValueError(f'{path}: the image cannot be read ({_reason(error)}); replace or remove it') from None
        return pixels.shape[0], pixels.shape[1]
    return (width, height) if is_turned else (height, width)


def orientation(path: Path) -> int:
    """Return the EXIF orientation of an image that can be read: 1 is upright; 5 to 8 exchange rows and columns."""
    try:
        with _open(path) as image:
            return int(image.getexif().get(_ORIENTATION, 1))
    except UnidentifiedImageError:  # read by OpenCV
        return 1


def _reason(error: Exception) -> str:
    """What PIL says, without the path that it repeats."""
    return 'no known image format' if isinstance(error, UnidentifiedImageError) else str(error)


def read_pixels(path: Path) -> np.ndarray:
    """Read a PNG or another image without loss as int64: (H, W) values or palette indices, or (H, W, C) colours.

    Raises:
        ValueError: The file cannot be decoded, or was compressed with loss.
    """
    if path.suffix.lower() in JPEG_SUFFIXES:
        raise ValueError(f'{path}: JPEG changes the values of a mask; save masks as PNG')
    try:
        with _open(path) as image:
            if image.mode in ('CMYK', 'YCbCr', 'LAB', 'HSV', 'F'):
                raise ValueError(f'values of mode {image.mode} are no labels')
            if len(image.getbands()) > 1 and any(';16' in str(tile) for tile in getattr(image, 'tile', ())):
                return _sixteen_bits(path)
            return np.asarray(image).astype(np.int64)
    except _UNREADABLE as error:
        raise ValueError(f'{path}: the mask cannot be read ({_reason(error)})') from None


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
    """Read a mask or label map as :func:`read_pixels` does.

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
