"""Many pictures on one sheet."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from knet_plugin.visualization.photo import as_rgb
from knet_plugin.visualization.text import text_size, write

__all__ = ['sheet']

_TALLEST = 1.5  # height of a cell in proportion to its width


def sheet(rows: Sequence[Sequence[np.ndarray | None]], titles: Sequence[str] = (), width: int = 1600) -> np.ndarray:
    """Return a grid of pictures on white, with a title above each column.

    All cells have one size. Pictures keep their aspect ratio and are enlarged or shrunk to fit; None leaves a cell
    empty, and rows may be shorter than others.

    Args:
        rows: Images, (H, W, 3) uint8 or what :func:`~.photo.as_rgb` takes.
        titles: One for each column; fewer or none are fine.
        width: Width of the sheet in pixels.

    Returns:
        (height, width, 3) uint8.
    """
    pictures = [[None if cell is None else as_rgb(cell) for cell in row] for row in rows]
    columns = max([len(row) for row in rows] + [len(titles), 1])
    gap = max(4, width // 160)
    cell = max(1, (width - gap) // columns - gap)
    shapes = [picture.shape for row in pictures for picture in row if picture is not None]
    height = max(1, min(round(cell * max([shape[0] / shape[1] for shape in shapes], default=0)), int(_TALLEST * cell)))
    size = max(10, min(32, round(cell / 18)))
    head = text_size('X', size)[1] + gap // 2 if titles else 0
    page = np.full((head + gap + len(rows) * (height + gap), width, 3), 255, np.uint8)
    for column, title in enumerate(titles):
        while title and text_size(title, size)[0] > cell:
            title = f'{title[:-2]}…' if len(title) > 2 else ''
        x = gap + column * (cell + gap) + (cell - text_size(title, size)[0]) // 2
        write(page, title, (x, gap // 2), size, background=(255, 255, 255))
    for number, row in enumerate(pictures):
        for column, picture in enumerate(row):
            if picture is not None:
                fitted = _fit(picture, cell, height)
                x = gap + column * (cell + gap) + (cell - fitted.shape[1]) // 2
                y = head + gap + number * (height + gap) + (height - fitted.shape[0]) // 2
                page[y:y + fitted.shape[0], x:x + fitted.shape[1]] = fitted
    return page


def _fit(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    scale = min(width / picture.shape[1], height / picture.shape[0])
    size = (max(1, min(width, round(picture.shape[1] * scale))), max(1, min(height, round(picture.shape[0] * scale))))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
