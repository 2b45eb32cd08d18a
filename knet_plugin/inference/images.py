"""Images of any kind as input of a test pipeline, and as a picture to draw on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS

from knet_plugin.datasets.config_parts import plain_datasets
from knet_plugin.inference.image_files import UnreadableError
from knet_plugin.visualization.photo import as_rgb

__all__ = ['ImageReader', 'split_pipeline']


class ImageReader:
    """Reads files with the loader of a config, so that they have the type and the channels of the training.

    The hosts' loaders give three channels as BGR; the arrays here are RGB.

    Args:
        loader: Config of the first step of a test pipeline, such as ``LoadImageFromFile``.
    """

    def __init__(self, loader: Mapping[str, Any]) -> None:
        self._load = TRANSFORMS.build(dict(loader))
        colours = getattr(self._load, 'color_type', '')  # mmcv's word, or flags of OpenCV
        flags = colours if isinstance(colours, int) and colours > 0 else 0
        self._in_colour = str(colours).startswith('color') or bool(flags & cv2.IMREAD_COLOR)
        self._deep = bool(flags & cv2.IMREAD_ANYDEPTH)
        self._to_float = bool(getattr(self._load, 'to_float32', False))

    def read(self, path: str | Path) -> np.ndarray:
        """Read a file as an array, (H, W, 3) RGB or (H, W, C) as it is.

        Raises:
            UnreadableError: The file is missing or cannot be decoded.
        """
        try:
            image = self._load(dict(img_path=str(path), img_id=0))['img']
        except FileNotFoundError as error:
            raise UnreadableError(f'there is no file {path}') from error
        except Exception as error:  # every decoder has its own errors, and few name the file
            raise UnreadableError(f'{path}: the file is empty or cannot be decoded as an image') from error
        return _swapped(image)

    def array(self, image: Any) -> np.ndarray:
        """Return a path, a PIL image or an array as an array of ``read``.

        Raises:
            ValueError: It is none of these, or has another number of dimensions than 2 or 3.
        """
        if isinstance(image, str | Path):
            return self.read(image)
        if not isinstance(image, np.ndarray):
            image = self._from_pil(image)
        if image.ndim not in (2, 3) or 0 in image.shape:
            raise ValueError(f'an image must be (H, W) or (H, W, C) with at least one pixel, got {image.shape}')
        if self._in_colour and not self._deep and image.dtype == np.uint16:
            image = (image >> 8).astype(np.uint8)  # as OpenCV reads a file
        if self._in_colour and (image.ndim == 2 or image.shape[2] in (1, 4)):
            grey = image.ndim == 2 or image.shape[2] == 1
            image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2) if grey else image[..., :3]
        return image

    def inputs(self, image: Any) -> dict[str, Any]:
        """Return the input of the steps after the loader."""
        array = _swapped(self.array(image))
        if self._to_float:
            array = array.astype(np.float32)
        path = str(image) if isinstance(image, str | Path) else None
        return dict(img=np.ascontiguousarray(array), img_path=path, img_id=0, img_shape=array.shape[:2],
                    ori_shape=array.shape[:2])

    def picture(self, image: Any) -> np.ndarray:
        """Return an image as (H, W, 3) uint8 RGB, to draw on."""
        array = self.array(image)
        blue_first = array.ndim == 3 and array.shape[2] == 4  # the hosts read four channels as BGRA
        if self._to_float and array.min() >= 0 and array.max() <= 255:
            array = array.astype(np.uint8)
        return as_rgb(array[..., 2::-1] if blue_first else array)

    def _from_pil(self, image: Any) -> np.ndarray:
        from PIL import Image, ImageOps

        if not isinstance(image, Image.Image):
            raise ValueError(f'an image must be a path, an array or a PIL image, got {type(image).__name__}')
        image = ImageOps.exif_transpose(image)
        deep = image.mode.startswith('I;16')  # which Pillow would clip to 8 bits
        return np.asarray(image.convert('RGB') if self._in_colour and not deep else image)


def split_pipeline(loader: Config) -> tuple[ImageReader, Compose]:
    """Split the pipeline of a data loader into what reads a file and what follows, without what reads annotations."""
    dataset = plain_datasets(loader.dataset)[0]
    steps = [step for step in dataset.pipeline if 'Annotation' not in str(step['type'])]
    return ImageReader(steps[0]), Compose(steps[1:])


def _swapped(image: np.ndarray) -> np.ndarray:
    """RGB as BGR and the reverse; other numbers of channels stay."""
    return image[..., ::-1] if image.ndim == 3 and image.shape[2] == 3 else image
