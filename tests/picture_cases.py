"""Results to draw."""

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from knet_plugin.visualization import Instance, Result, Segment

CLASSES = ('person', 'car', 'sky', 'road')


def photo(height: int, width: int) -> np.ndarray:
    """A grey photo with noise: no pixel has a colour of the palette."""
    grey = np.random.default_rng(0).integers(60, 180, (height, width, 1), dtype=np.uint8)
    return np.repeat(grey, 3, axis=2)


def cells(number: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """A map of ``number`` convex cells that fill it, numbered from 1."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:100, :100]
    distances = [(y - row) ** 2 + (x - column) ** 2 for row, column in rng.uniform(0, 100, (number, 2))]
    small = np.argmin(distances, axis=0).astype(np.int32) + 1
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


def panoptic(ids: np.ndarray, score: float | None = None) -> Result:
    """A result in which the label of segment i is i % 4; labels 0 and 1 are things."""
    segments = [Segment(i, i % 4, i % 4 < 2, score if i % 4 < 2 else None) for i in np.unique(ids).tolist() if i]
    return Result(ids.shape, panoptic=ids, segments=segments)


def instance(mask: np.ndarray, label: int = 0, score: float | None = 0.9) -> Instance:
    """An instance of a dense mask."""
    encoding = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    x, y, width, height = coco_mask.toBbox(encoding).tolist()
    return Instance(label, score, (x, y, x + width, y + height), encoding)


def instances(ids: np.ndarray, score: float | None = 0.9) -> Result:
    """The cells of a map as instances of labels 0 and 1."""
    return Result(ids.shape, instances=[instance(ids == i, i % 2, score) for i in np.unique(ids).tolist() if i])
