"""Many pictures on one sheet."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from knet_plugin.visualization.photo import as_rgb
from knet_plugin.visualization.text import text_size, write

__all__ = ['sheet']

_TALLEST = 1.5  # height of a row in proportion to the width of a column


def sheet(rows: Sequence[Sequence[np.ndarray | None]], titles: Sequence[str] = (), width: int = 1600) -> np.ndarray:
    """Return a grid of pictures on white, with a title above each column.

    All columns have one width, and a row is as high as its pictures need, at most 1.5 times that. Pictures keep their
    aspect ratio and are enlarged or shrunk to fit; None leaves a cell empty, and rows may be shorter than others.

    Args:
        rows: Images, (H, W, 3) uint8 or what ``as_rgb`` takes.
        titles: One for each column; fewer or none are fine.
        width: Width of the sheet in pixels.

    Returns:
        (height, width, 3) uint8.
    """
    columns = max([len(row) for row in rows] + [len(titles), 1])
    gap = max(4, width // 160)
    cell = max(1, (width - gap) // columns - gap)
    left = [gap + column * (cell + gap) for column in range(columns)]
    parts = [_head(titles, left, cell, width)] if titles else []
    for row in rows:
        pictures = [None if picture is None else _fit(as_rgb(picture), cell, int(_TALLEST * cell)) for picture in row]
        height = max([len(picture) for picture in pictures if picture is not None], default=0)
        part = np.full((gap + height, width, 3), 255, np.uint8)
        for x, picture in zip(left, pictures, strict=False):
            if picture is not None:
                y, x = gap + (height - picture.shape[0]) // 2, x + (cell - picture.shape[1]) // 2
                part[y:y + picture.shape[0], x:x + picture.shape[1]] = picture
        parts.append(part)
    return np.concatenate([*parts, np.full((gap, width, 3), 255, np.uint8)])


def _head(titles: Sequence[str], left: Sequence[int], cell: int, width: int) -> np.ndarray:
    size = max(10, min(32, round(cell / 18)))
    head = np.full((text_size('X', size)[1] + 4, width, 3), 255, np.uint8)
    for x, title in zip(left, titles, strict=False):
        write(head, title, (x + (cell - text_size(title, size)[0]) // 2, 4), size, background=(255, 255, 255))
    return head


def _fit(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    scale = min(width / picture.shape[1], height / picture.shape[0])
    size = (max(1, min(width, round(picture.shape[1] * scale))), max(1, min(height, round(picture.shape[0] * scale))))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
