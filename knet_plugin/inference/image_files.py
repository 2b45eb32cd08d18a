"""Images and videos as RGB arrays; works without the host packages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

__all__ = ['ColourReader', 'UnreadableError', 'count_frames', 'read_video', 'write_image']


class UnreadableError(ValueError):
    """A file is missing, or no image that the model reads; the message names the file."""


class ColourReader:
    """Reads images as (H, W, 3) uint8 RGB, turned as their EXIF tag says."""

    def read(self, path: str | Path) -> np.ndarray:
        """Read a file.

        Raises:
            UnreadableError: The file is missing or cannot be decoded.
        """
        try:
            image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
        except FileNotFoundError as error:
            raise UnreadableError(f'there is no file {path}') from error
        except (OSError, cv2.error):
            image = None
        if image is None:
            raise UnreadableError(f'{path}: the file is empty or cannot be decoded as an image')
        return image[..., ::-1]

    def picture(self, image: Any) -> np.ndarray:
        """Return a path, a PIL image, or an array (H, W) or (H, W, C) of uint8 or uint16 as (H, W, 3) uint8 RGB.

        Raises:
            ValueError: It is none of these, or has no pixels; of a file, an ``UnreadableError``.
        """
        if isinstance(image, str | Path):
            return self.read(image)
        if not isinstance(image, np.ndarray):
            from PIL import Image, ImageOps

            if not isinstance(image, Image.Image):
                raise ValueError(f'an image must be a path, an array or a PIL image, got {type(image).__name__}')
            image = ImageOps.exif_transpose(image)
            image = np.asarray(image if image.mode.startswith('I;16') else image.convert('RGB'))
        if image.ndim not in (2, 3) or 0 in image.shape:
            raise ValueError(f'an image must be (H, W) or (H, W, C) with at least one pixel, got {image.shape}')
        if image.dtype == np.uint16:
            image = (image >> 8).astype(np.uint8)  # as OpenCV reads a file
        if image.dtype != np.uint8:
            raise ValueError(f'an image must be uint8 or uint16, got {image.dtype}')
        channels = image[..., None] if image.ndim == 2 else image
        return channels[..., :3] if channels.shape[2] >= 3 else np.repeat(channels[..., :1], 3, axis=2)


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image in OpenCV's order of channels, in the format of the file's ending; make its folder.

    Raises:
        OSError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    done, content = cv2.imencode(path.suffix, image)
    if not done:
        raise OSError(f'cannot write {path}: OpenCV cannot encode it')
    path.write_bytes(content.tobytes())  # OpenCV's own writer fails at some names


def count_frames(path: Path) -> int:
    """Return how many frames a video promises."""
    return int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT))


def read_video(path: Path) -> Iterator[tuple[np.ndarray, float]]:
    """Yield each frame, (H, W, 3) uint8 RGB, with the frames per second.

    Raises:
        UnreadableError: There is no frame.
    """
    video = cv2.VideoCapture(str(path))
    rate = video.get(cv2.CAP_PROP_FPS) or 25.
    found, image = video.read()
    if not found:
        raise UnreadableError(f'{path}: the video is empty or cannot be decoded')
    while found:
        yield image[..., ::-1], rate
        found, image = video.read()
