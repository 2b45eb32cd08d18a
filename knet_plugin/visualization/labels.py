"""Where the names of regions stand: inside their regions, and not on each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from knet_plugin.visualization.text import text_size

__all__ = ['Label', 'Wanted', 'place_labels']

_MOST = 150  # labels in a picture
_GRID = 512  # longest side of the map on which places are searched
_HIDDEN = 0.4  # share of an object that its label may hide
_LONGEST = 1.5  # length of a label that is not inside its object, in proportion to the object's longer side


@dataclass(frozen=True)
class Wanted:
    """A label to place."""

    number: int  # of its region on the map
    texts: tuple[str, ...]  # the first that fits is written
    size: int  # height of the font in pixels
    may_overhang: bool  # it may be larger than its region, though centred in it


@dataclass(frozen=True)
class Label:
    """A placed label."""

    number: int
    text: str
    size: int
    box: tuple[int, int, int, int]  # x, y, width, height in pixels, inside the image


def place_labels(index: np.ndarray, wanted: Sequence[Wanted]) -> list[Label]:
    """Place labels in the order given, each where its box lies deepest inside its region and on no earlier label.

    Labels without such a place are left out. ``index`` is an (H, W) map of region numbers.
    """
    grid = _Grid(index)
    placed = (grid.place(want) for want in wanted[:_MOST])
    return [label for label in placed if label is not None]


class _Grid:
    """The map at reduced resolution, and the boxes that are taken."""

    def __init__(self, index: np.ndarray) -> None:
        self.height, self.width = index.shape
        self.step = max(1, -(-max(index.shape) // _GRID))
        row, column = (min(self.step // 2, length - 1) for length in index.shape)
        self.index = np.ascontiguousarray(index[row::self.step, column::self.step])
        self.taken: list[tuple[int, int, int, int]] = []

    def place(self, want: Wanted) -> Label | None:
        mask = (self.index == want.number).astype(np.uint8)
        x0, y0, columns, rows = cv2.boundingRect(mask)
        if columns == 0:
            return None
        mask = mask[y0:y0 + rows, x0:x0 + columns]
        for find in (self._inside, self._overhanging) if want.may_overhang else (self._inside,):
            for text in want.texts:
                size = text_size(text, want.size)
                centre = find(mask, (x0, y0), size)
                if centre is not None:
                    box = (round(centre[0] - size[0] / 2), round(centre[1] - size[1] / 2), *size)
                    self.taken.append(box)
                    return Label(want.number, text, want.size, box)
        return None

    def _inside(self, mask: np.ndarray, offset: tuple[int, int], size: tuple[int, int]) -> tuple[float, float] | None:
        """Return the centre, in pixels, of the largest box of the text's shape in a mask, if the text fits there.

        Squeezing the mask horizontally by the shape of the text turns that box into a square. Half its side is the
        chessboard distance to the nearest pixel outside. ``offset`` is the column and row of the mask on the map.
        """
        squeezed = max(1, round(mask.shape[1] * size[1] / size[0]))
        square = cv2.resize(mask * np.uint8(255), (squeezed, len(mask)), interpolation=cv2.INTER_AREA) > 160
        depth, x, y = self._deepest(square.astype(np.uint8), mask.shape[1], offset, size)
        return (x, y) if (2 * depth - 1) * self.step >= size[1] else None

    def _overhanging(self, mask: np.ndarray, offset: tuple[int, int],
                     size: tuple[int, int]) -> tuple[float, float] | None:
        """Return the deepest place in the largest piece of a mask, for a text that is larger but hides little of it."""
        _, pieces, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        largest = 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
        _, _, columns, rows, area = statistics[largest]
        piece = (pieces == largest).astype(np.uint8)
        depth, x, y = self._deepest(piece, mask.shape[1], offset, size)
        if depth <= 0 or size[0] > _LONGEST * max(columns, rows) * self.step:
            return None
        width, height = size[0] / self.step, size[1] / self.step
        left, top = x / self.step - offset[0] - width / 2, y / self.step - offset[1] - height / 2
        hidden = piece[max(0, round(top)):max(0, round(top + height)), max(0, round(left)):max(0, round(left + width))]
        return (x, y) if np.count_nonzero(hidden) <= _HIDDEN * area else None

    def _deepest(self, mask: np.ndarray, columns: int, offset: tuple[int, int],
                 size: tuple[int, int]) -> tuple[float, float, float]:
        """Return depth in cells, x and y of the deepest place of a mask where a text is allowed; depth 0: none.

        ``columns`` is the width of the mask before it was squeezed.
        """
        width, height = size
        depth = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_C, 3)[1:-1, 1:-1]
        x = (offset[0] + (np.arange(mask.shape[1]) + 0.5) * columns / mask.shape[1]) * self.step
        y = (offset[1] + np.arange(len(mask)) + 0.5) * self.step
        allowed = np.zeros(mask.shape, bool)
        allowed[_between(y, height / 2, self.height - height / 2),
                _between(x, width / 2, self.width - width / 2)] = True
        gap = height / 8
        for left, top, other_width, other_height in self.taken:
            allowed[_between(y, top - height / 2 - gap, top + other_height + height / 2 + gap),
                    _between(x, left - width / 2 - gap, left + other_width + width / 2 + gap)] = False
        # Deeper than three lines of text is no better; among equals, the place nearest to the middle.
        from_middle = np.add.outer(*(np.abs(np.linspace(-1, 1, length)) for length in mask.shape))
        score = np.where(allowed, np.minimum(depth, 3 * height / self.step) - 0.5 * from_middle, -np.inf)
        row, column = divmod(int(score.argmax()), mask.shape[1])
        return (float(depth[row, column]) if allowed[row, column] else 0.0), float(x[column]), float(y[row])


def _between(values: np.ndarray, low: float, high: float) -> slice:
    """Return the slice of increasing values that lie between two limits."""
    return slice(*np.searchsorted(values, (low, high)).tolist())
