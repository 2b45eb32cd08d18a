"""Masks at the size of the result, of which only the tiles exist that something depends on."""

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ['ResizedMasks', 'above', 'owners']

TILE = 32
"""Side of a tile, in pixels of the result."""
CHUNK = 2048
"""Tiles that are made at once: 8 MiB of values, and what they are made from."""
MARGIN = 1e-5
"""A bound decides only where it is this far, relatively, from what it is compared with: rounding stays out of it."""


class _Axis(NamedTuple):
    """One axis of all resizes together, cut into tiles: ``result = weights @ source[starts : starts + extent]``."""

    weights: Tensor
    """(tiles, TILE, extent); rows beyond the result are zero."""
    starts: Tensor
    """First entry of the source that each tile reads, (tiles,)."""
    length: int
    """Pixels of the result."""


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
        axes = [_axis(*sizes) for sizes in zip(masks.shape[-2:], padded, image, result, strict=True)]
        self.low, self.high = _bounds(masks, axes)
        self._axes = [axis._replace(weights=axis.weights.to(masks), starts=axis.starts.to(masks.device))
                      for axis in axes]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return self.low.shape[1], self.low.shape[2]

    @property
    def areas(self) -> Tensor:
        """Pixels of each tile that lie within the result, (rows, columns)."""
        rows, columns = ((axis.length - torch.arange(0, axis.length, TILE, device=self.masks.device)).clamp(max=TILE)
                         for axis in self._axes)
        return rows[:, None] * columns

    def values(self, masks: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Pixels of P tiles.

        Args:
            masks: Mask of each, (P,).
            rows: Its row in the grid of tiles, (P,).
            columns: Its column, (P,).

        Returns:
            (P, TILE, TILE); pixels beyond the result are 0.
        """
        (vertical, tops, _), (horizontal, lefts, _) = self._axes
        y = tops[rows][:, None] + torch.arange(vertical.shape[-1], device=rows.device)
        x = lefts[columns][:, None] + torch.arange(horizontal.shape[-1], device=rows.device)
        patches = self.masks[masks[:, None, None], y[:, :, None], x[:, None, :]]
        return vertical[rows] @ (patches @ horizontal[columns].mT)

    def assemble(self, tiles: Tensor) -> Tensor:
        """Tiles (..., rows, columns, TILE, TILE) to maps (..., H, W)."""
        maps = tiles.transpose(-3, -2).flatten(-4, -3).flatten(-2, -1)
        return maps[..., :self.size[0], :self.size[1]]


@lru_cache(maxsize=256)  # images of a data set have few sizes
def _axis(source: int, padded: int, image: int, result: int) -> _Axis:
    maps = F.interpolate(torch.eye(source)[None], padded, mode='linear', align_corners=False)[..., :image]
    weights = F.interpolate(maps, result, mode='linear', align_corners=False)[0].T  # result, source
    tiles = F.pad(weights, (0, 0, 0, -result % TILE)).unflatten(0, (-1, TILE))
    used = tiles.ne(0).any(dim=1).int()  # tiles, source
    first, last = used.argmax(dim=1), source - 1 - used.flip(1).argmax(dim=1)
    extent = int((last - first).max()) + 1
    starts = first.clamp(max=source - extent)
    taken = starts[:, None] + torch.arange(extent)
    return _Axis(tiles.gather(2, taken[:, None].expand(-1, TILE, -1)).contiguous(), starts, result)


def _bounds(masks: Tensor, axes: list[_Axis]) -> tuple[Tensor, Tensor]:
    """Smallest and largest source value that each tile reads, (N, rows, columns) each."""
    low = high = masks
    for dim, axis in zip((1, 2), axes, strict=True):
        extent = axis.weights.shape[-1]
        starts = axis.starts.tolist()  # kept on the CPU: nothing waits for the device
        low = torch.stack([low.narrow(dim, start, extent).amin(dim=dim) for start in starts], dim=dim)
        high = torch.stack([high.narrow(dim, start, extent).amax(dim=dim) for start in starts], dim=dim)
    return low, high


def above(masks: ResizedMasks, threshold: float) -> Tensor:
    """Where each mask exceeds a threshold, (N, H, W) of bool."""
    rows, columns = masks.grid
    inside = masks.low > threshold * (1 + MARGIN)
    border = ~(masks.high <= threshold * (1 - MARGIN)) & ~inside  # where a bound is not a number, too
    result = inside.new_empty(len(inside), rows * TILE, columns * TILE)
    result.view(-1, rows, TILE, columns * TILE).copy_(inside.repeat_interleave(TILE, dim=2)[:, :, None])
    tiles = result.view(-1, rows, TILE, columns, TILE).transpose(2, 3)
    for chunk in border.nonzero().split(CHUNK):
        places = chunk.unbind(dim=1)
        tiles[places] = masks.values(*places) > threshold
    return result[:, :masks.size[0], :masks.size[1]].contiguous()


def owners(masks: ResizedMasks, scores: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Which mask owns each pixel, by the largest product of score and value, and how many pixels each one claims.

    Tiles where a single mask can win are its own. For the others the masks that can win take turns: the first of every
    tile, the second, and so on, each against the best so far. So there are as many turns as the most contended tile
    has contenders, and nothing larger than the image is made.

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
    owner = contender.int().argmax(dim=0)[..., None, None].repeat(1, 1, TILE, TILE)
    best = torch.where(contended, -1., torch.inf)[..., None, None].repeat(1, 1, TILE, TILE)

    inside = (masks.low >= 0.5 * (1 + MARGIN)) & counted[:, None, None]
    border = ~(masks.high < 0.5 * (1 - MARGIN)) & ~inside & counted[:, None, None]
    claimed = torch.where(inside, masks.areas, 0).flatten(1).sum(dim=1)

    needed = (contender & contended) | border
    places = needed.nonzero()  # by mask, so that a tile's masks take turns in their order
    turns = needed.cumsum(dim=0)[needed]
    for turn in places[turns.argsort(stable=True)].split(turns.bincount(minlength=1)[1:].tolist() or [0]):
        mask, row, column = turn.unbind(dim=1)
        values = masks.values(mask, row, column)
        claims = (values >= 0.5).flatten(1).sum(dim=1)
        claimed.index_add_(0, mask, torch.where(border[mask, row, column], claims, 0))
        values = values * scores[mask, None, None]
        better = values > best[row, column]
        best[row, column] = torch.where(better, values, best[row, column])
        owner[row, column] = torch.where(better, mask[:, None, None], owner[row, column])
    return masks.assemble(owner), claimed
