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
_OVERHANG = 0.45  # least share of its size for which a label must fit into its object


@dataclass(frozen=True)
class Wanted:
    """A label to place.

    Attributes:
        number: Its region: the pixels of this number on the map.
        texts: What to write, best first; the first that fits is taken.
        size: Height of the font in pixels.
        may_overhang: The label may be larger than its region, though centred in it.
    """

    number: int
    texts: tuple[str, ...]
    size: int
    may_overhang: bool


@dataclass(frozen=True)
class Label:
    """A placed label: its box is x, y, width, height in pixels, inside the image."""

    number: int
    text: str
    size: int
    box: tuple[int, int, int, int]

    @property
    def corner(self) -> tuple[int, int]:
        """x, y of the upper left corner."""
        return self.box[:2]


def place_labels(index: np.ndarray, wanted: Sequence[Wanted]) -> list[Label]:
    """Place labels in the order given, each where its box lies deepest inside its region and on no earlier label.

    Labels without such a place are left out.

    Args:
        index: (H, W) map of region numbers.
        wanted: The labels, the most important first.
    """
    grid = _Grid(index)
    placed: list[Label] = []
    for want in wanted[:_MOST]:
        label = grid.place(want)
        if label is not None:
            placed.append(label)
    return placed


class _Grid:
    """The map at reduced resolution, and the boxes that are taken."""

    def __init__(self, index: np.ndarray) -> None:
        self.height, self.width = index.shape
        self.step = max(1, -(-max(index.shape) // _GRID))
        half = self.step // 2
        self.index = np.ascontiguousarray(index[half::self.step, half::self.step])
        self.taken: list[tuple[int, int, int, int]] = []

    def place(self, want: Wanted) -> Label | None:
        mask = (self.index == want.number).astype(np.uint8)
        x0, y0, columns, rows = cv2.boundingRect(mask)
        if columns == 0:
            return None
        mask = mask[y0:y0 + rows, x0:x0 + columns]
        for least in (1.0, _OVERHANG) if want.may_overhang else (1.0,):
            for text in want.texts:
                size = text_size(text, want.size)
                centre = self._deepest(mask, (x0, y0), size, least)
                if centre is not None:
                    box = (round(centre[0] - size[0] / 2), round(centre[1] - size[1] / 2), *size)
                    self.taken.append(box)
                    return Label(want.number, text, want.size, box)
        return None

    def _deepest(self, mask: np.ndarray, offset: tuple[int, int], size: tuple[int, int],
                 least: float) -> tuple[float, float] | None:
        """Return the centre, in pixels of the image, of the largest box of the text's shape inside a mask.

        Squeezing the mask horizontally by the shape of the text turns that box into a square, and the distance to the
        nearest pixel outside, in chessboard metric, into half its side.

        Args:
            mask: (h, w) mask of a region, cut out of the map.
            offset: Column and row of the cut.
            size: Width and height of the text in pixels.
            least: Size of the box in proportion to the text's.
        """
        width, height = size
        rows, columns = mask.shape
        squeezed = max(1, round(columns * height / width))
        square = cv2.resize(mask * np.uint8(255), (squeezed, rows), interpolation=cv2.INTER_AREA) > 160
        depth = cv2.distanceTransform(np.pad(square, 1).astype(np.uint8), cv2.DIST_C, 3)[1:-1, 1:-1]
        x = (offset[0] + (np.arange(squeezed) + 0.5) * columns / squeezed) * self.step
        y = (offset[1] + np.arange(rows) + 0.5) * self.step
        allowed = np.outer((y >= height / 2) & (y <= self.height - height / 2),
                           (x >= width / 2) & (x <= self.width - width / 2))
        for left, top, other_width, other_height in self.taken:
            gap = height / 8
            crossing = np.abs(x - left - other_width / 2) < (width + other_width) / 2 + gap
            allowed[np.ix_(np.abs(y - top - other_height / 2) < (height + other_height) / 2 + gap, crossing)] = False
        # Among equally deep places, the one nearest to the middle.
        from_middle = np.add.outer(np.abs(np.linspace(-1, 1, rows)), np.abs(np.linspace(-1, 1, squeezed)))
        score = np.where(allowed, np.minimum(depth, 3 * height / self.step) - 0.5 * from_middle, -np.inf)
        row, column = divmod(int(score.argmax()), squeezed)
        if not allowed[row, column] or (2 * depth[row, column] - 1) * self.step < least * height:
            return None
        return float(x[column]), float(y[row])
