"""Masks of polygons, for formats whose tools count the pixels of the outline as part of the object.

Ultralytics fills polygons with OpenCV, and labelme with PIL; both draw the outline, too. COCO's rule, which leaves out
the pixels of the right and lower outline, would shrink masks whose polygons come from ``cv2.findContours``.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from knet_plugin.datasets.prepare.sample import encode_map
from knet_plugin.datasets.segmentations import usable

__all__ = ['encode_polygon']


def encode_polygon(points: np.ndarray, size: tuple[int, int]) -> tuple[dict[str, Any] | None, str | None]:
    """Return the RLE of a polygon, (N, 2) pixels, in an image of (height, width), or why it has none."""
    polygons, problem = usable([points.ravel().tolist()], size)
    if problem:
        return None, problem
    mask = np.zeros(size, np.uint8)
    cv2.fillPoly(mask, [np.round(polygons[0]).astype(np.int32).reshape(-1, 2)], 1)
    rle = encode_map(mask).get(1)
    return rle, None if rle else 'a polygon outside the image'
