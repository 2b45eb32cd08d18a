"""Masks at the size of the result, of which only the tiles exist that something depends on."""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ['ResizedMasks', 'above', 'owners']

TILE = 32
"""Side of a tile, in pixels of the result."""
CHUNK = 4 * 2**20
"""Bytes of the largest tensor that is made of the pixels of several tiles, or rows of tiles, before the result."""
MOST = 0.25
"""Share of all tiles above which it is faster to make whole rows of tiles than one tile after the other."""
MARGIN = 1e-5
"""A bound decides only where it is this far, relatively, from what it is compared with: rounding stays out of it."""


class _Axis(NamedTuple):
    """One axis of all resizes together, cut into tiles: ``result = weights @ source[starts : starts + extent]``.

    In arrays, because they are cached: a tensor would belong to the mode or the device under which it was made first.
    """

    weights: np.ndarray
    """(tiles, TILE, extent); rows beyond the result are zero."""
    starts: np.ndarray
    """First entry of the source that each tile reads, (tiles,)."""
    taken: np.ndarray
    """All entries that each tile reads, (tiles, extent)."""


class ResizedMasks:
    """Probabilities at a low resolution, to be brought to the padded input, cut to the image, and resized again.

    Both resizes are bilinear, hence linear, and so is the cut: for each axis they are one matrix, which
    ``F.interpolate`` itself yields when it is applied to the unit vectors. Its rows are weights that sum to 1, so a
    pixel lies between the smallest and the largest source value that its tile reads. That tells for most tiles of most
    masks what their pixels are going to be compared with, without making them.

    Args:
        masks: Probabilities, (N, h, w).
        padded: Height and width of the padded input.
        image: Height and width of the image in it.
        result: Height and width of the result; ``image`` where the second resize is left out.

    Attributes:
        size: Height H and width W of the result.
        low: Lower bound of each tile of each mask, (N, rows, columns) of tiles.
        high: Upper bound, likewise.
    """

    def __init__(self, masks: Tensor, padded: tuple[int, int], image: tuple[int, int],
                 result: tuple[int, int]) -> None:
        self.masks = masks
        self.size = result
        axes = [_axis(*sizes, masks.dtype == torch.float64)
                for sizes in zip(masks.shape[-2:], padded, image, result, strict=True)]
        self._tops = axes[0].starts.tolist()
        self.low, self.high = _bounds(masks, axes)
        self._dtype = torch.float64 if _products_are_rounded(masks) else masks.dtype
        self._vertical, self._horizontal = (torch.from_numpy(axis.weights).to(masks.device, self._dtype)
                                            for axis in axes)
        self._rows, self._columns = (torch.from_numpy(axis.taken).to(masks.device) for axis in axes)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return self.low.shape[1], self.low.shape[2]

    @property
    def areas(self) -> Tensor:
        """Pixels of each tile that lie within the result, (rows, columns)."""
        rows, columns = ((length - torch.arange(0, length, TILE, device=self.masks.device)).clamp(max=TILE)
                         for length in self.size)
        return rows[:, None] * columns

    @property
    def tiles_at_once(self) -> int:
        """How many tiles :meth:`values` may be asked for."""
        y, x = self._rows.shape[1], self._columns.shape[1]
        return _at_once(max(TILE, y) * max(TILE, x))

    def values(self, masks: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Pixels of P tiles.

        Args:
            masks: Mask of each, (P,).
            rows: Its row in the grid of tiles, (P,).
            columns: Its column, (P,).

        Returns:
            (P, TILE, TILE); pixels beyond the result are 0.
        """
        y, x = self._rows[rows], self._columns[columns]
        patches = self.masks[masks[:, None, None], y[:, :, None], x[:, None, :]].to(self._dtype)
        return (self._vertical[rows] @ (patches @ self._horizontal[columns].mT)).to(self.masks.dtype)

    def strips(self) -> Iterator[tuple[int, slice, Tensor]]:
        """Pixels of all tiles, a few masks and one row of tiles at a time.

        Yields:
            The row; n masks; their pixels in it, (columns, n, TILE, TILE), 0 beyond the result.
        """
        (columns, extent), height, width = self._columns.shape, self._rows.shape[1], self.masks.shape[2]
        at_once = _at_once(max(TILE * columns * max(TILE, extent), max(TILE, height) * width))
        horizontal = self._horizontal.mT.contiguous()
        for row, top in enumerate(self._tops):
            for first in range(0, len(self.masks), at_once):
                chosen = slice(first, first + at_once)
                band = self.masks[chosen, top:top + height].to(self._dtype)
                lines = (self._vertical[row] @ band).flatten(0, 1)  # n * TILE, w
                patches = lines.index_select(1, self._columns.flatten()).view(-1, columns, extent).transpose(0, 1)
                yield row, chosen, torch.bmm(patches, horizontal).to(self.masks.dtype).unflatten(1, (-1, TILE))

    def assemble(self, tiles: Tensor) -> Tensor:
        """Tiles (..., rows, columns, TILE, TILE) to maps (..., H, W)."""
        maps = tiles.transpose(-3, -2).flatten(-4, -3).flatten(-2, -1)
        return maps[..., :self.size[0], :self.size[1]]


@lru_cache(maxsize=256)  # images of a data set have few sizes
def _axis(source: int, padded: int, image: int, result: int, double: bool) -> _Axis:
    """In double precision for masks that have it: in single, ``F.interpolate`` rounds the places that it reads."""
    with torch.inference_mode(False), torch.no_grad():
        units = torch.eye(source, dtype=torch.float64 if double else torch.float32, device='cpu')[None]
        maps = F.interpolate(units, padded, mode='linear', align_corners=False)[..., :image]
        weights = F.interpolate(maps, result, mode='linear', align_corners=False)[0].T.numpy()  # result, source
    tiles = np.pad(weights, ((0, -result % TILE), (0, 0))).reshape(-1, TILE, source)
    used = (tiles != 0).any(axis=1)  # tiles, source
    first, last = used.argmax(axis=1), source - 1 - used[:, ::-1].argmax(axis=1)
    extent = int((last - first).max()) + 1
    starts = first.clip(max=source - extent)
    taken = starts[:, None] + np.arange(extent)
    return _Axis(np.take_along_axis(tiles, taken[:, None], axis=2), starts, taken)


def _bounds(masks: Tensor, axes: list[_Axis]) -> tuple[Tensor, Tensor]:
    """Smallest and largest source value that each tile reads, (N, rows, columns) each."""
    low = high = masks
    for dim, axis in zip((1, 2), axes, strict=True):
        extent = axis.weights.shape[-1]
        starts = axis.starts.tolist()  # on the CPU: nothing waits for the device
        low = torch.stack([low.narrow(dim, start, extent).amin(dim=dim) for start in starts], dim=dim)
        high = torch.stack([high.narrow(dim, start, extent).amax(dim=dim) for start in starts], dim=dim)
    return low, high


def _products_are_rounded(masks: Tensor) -> bool:
    """Whether torch may round factors to 11 bits or fewer, which would move pixels across a threshold.

    The setting is one for all threads, so it is not changed here.
    """
    if masks.dtype != torch.float32 or masks.device.type not in ('cpu', 'cuda'):
        return False
    try:
        return torch.get_float32_matmul_precision() != 'highest'
    except RuntimeError:  # newer versions of torch, when only some backends were told to round
        return True


def _at_once(pixels: int) -> int:
    """How many pieces of so many pixels fit into a chunk; 8 bytes each, which indices have."""
    return max(CHUNK // (8 * pixels), 1)


def _most(places: Tensor, needed: Tensor) -> bool:
    return len(places) > MOST * needed.numel()


def above(masks: ResizedMasks, threshold: float) -> Tensor:
    """Where each mask exceeds a threshold, (N, H, W) of bool."""
    rows, columns = masks.grid
    inside = masks.low > threshold * (1 + MARGIN)
    border = ~(masks.high <= threshold * (1 - MARGIN)) & ~inside  # where a bound is not a number, too
    result = inside.new_empty(len(inside), rows * TILE, columns * TILE)
    tiles = result.view(-1, rows, TILE, columns, TILE).transpose(2, 3)
    places = border.nonzero()
    if _most(places, border):
        for row, chosen, values in masks.strips():
            tiles[chosen, row] = (values > threshold).transpose(0, 1)
    else:
        result.view(-1, rows, TILE, columns * TILE).copy_(inside.repeat_interleave(TILE, dim=2)[:, :, None])
        for chunk in places.split(masks.tiles_at_once):
            indices = chunk.unbind(dim=1)
            tiles[indices] = masks.values(*indices) > threshold
    return result[:, :masks.size[0], :masks.size[1]].contiguous()


def owners(masks: ResizedMasks, scores: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Which mask owns each pixel, by the largest product of score and value, and how many pixels each one claims.

    Tiles where a single mask can win are its own. For the others the masks that can win take turns: the first of every
    tile, the second, and so on, each against the best so far. So there are as many turns as the most contended tile
    has contenders. Where many masks can win many tiles, all of them are made, row by row. Either way ``CHUNK`` bounds
    the pixels that exist at once, besides those of the result.

    Args:
        masks: N masks.
        scores: Their scores, (N,), not negative.
        counted: Masks whose claim is wanted, (N,) of bool.

    Returns:
        Indices of masks, (H, W), the lowest one where several are equal; pixels with a value of at least 0.5, (N,), 0
        where not ``counted``.
    """
    factors = scores[:, None, None]
    low, high = factors * masks.low, factors * masks.high
    contender = ~(high < low.amax(dim=0) * (1 - MARGIN))  # N, rows, columns
    contended = contender.sum(dim=0) > 1
    inside = (masks.low >= 0.5 * (1 + MARGIN)) & counted[:, None, None]
    border = ~(masks.high < 0.5 * (1 - MARGIN)) & ~inside & counted[:, None, None]

    needed = (contender & contended) | border
    places = needed.nonzero()  # by mask, so that a tile's masks take turns in their order
    if _most(places, needed):
        owner, claims = _owners_of_strips(masks, scores)
        return masks.assemble(owner), torch.where(counted, claims, 0)

    owner = contender.int().argmax(dim=0)[..., None, None].repeat(1, 1, TILE, TILE)
    best = torch.where(contended, -1., torch.inf).to(masks.masks)[..., None, None].repeat(1, 1, TILE, TILE)
    claimed = torch.where(inside, masks.areas, 0).flatten(1).sum(dim=1)
    turns = needed.cumsum(dim=0)[needed]
    for turn in places[turns.argsort(stable=True)].split(turns.bincount(minlength=1)[1:].tolist() or [0]):
        for chunk in turn.split(masks.tiles_at_once):
            mask, row, column = chunk.unbind(dim=1)
            values = masks.values(mask, row, column)
            claims = _count(values, dim=(1, 2))
            claimed.index_add_(0, mask, torch.where(border[mask, row, column], claims, 0))
            values *= scores[mask, None, None]
            better = values > best[row, column]
            best[row, column] = torch.where(better, values, best[row, column])
            owner[row, column] = torch.where(better, mask[:, None, None], owner[row, column])
    return masks.assemble(owner), claimed


def _owners_of_strips(masks: ResizedMasks, scores: Tensor) -> tuple[Tensor, Tensor]:
    """The same for all masks and all tiles, which are returned as such: (rows, columns, TILE, TILE)."""
    claimed = torch.zeros_like(scores, dtype=torch.long)
    best = masks.masks.new_full((*masks.grid, TILE, TILE), -1)
    owner = torch.zeros_like(best, dtype=torch.long)
    for row, chosen, values in masks.strips():
        claimed[chosen] += _count(values, dim=(0, 2, 3))
        # What is not a number wins against nothing. Numbers in place of bools: on a CPU much faster.
        values.mul_(scores[chosen, None, None]).nan_to_num_(nan=-1)
        winning = values.amax(dim=1)
        number = values.shape[1]
        ranks = torch.arange(number, 0, -1, dtype=values.dtype, device=values.device)  # the first one's is the highest
        winner = chosen.start + number - values.eq_(winning[:, None]).mul_(ranks[:, None, None]).amax(dim=1).long()
        better = winning > best[row]
        best[row] = torch.where(better, winning, best[row])
        owner[row] = torch.where(better, winner, owner[row])
    return owner, claimed


def _count(values: Tensor, dim: tuple[int, ...]) -> Tensor:
    """How many values are at least 0.5; fewer than 2^24, so that their sum is exact, and faster than one of bools."""
    return torch.ge(values, 0.5, out=torch.empty_like(values)).sum(dim=dim).long()
