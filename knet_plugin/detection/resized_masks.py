"""Masks at the size of the result, computed in strips of rows to bound memory and to stay in a processor's cache."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import pycocotools.mask as mask_utils
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ['Sizes', 'assign_pixels', 'binarize', 'encode', 'resized_strips']

CACHED = 'cpu'  # type of the devices for which strips fit into a cache
BAND = 32  # rows of a strip, and columns that one matrix product computes
GROUP = 16  # masks that are resized at once
# For others, as few operators as memory allows: launching an operator takes longer than running it.
STRIP_VALUES = 2 ** 26  # values of a strip, or of a group of masks after its horizontal resize


class Sizes(NamedTuple):
    """Height and width in pixels of the padded input, of the image in its upper left corner, and of the result."""

    padded: tuple[int, int]
    image: tuple[int, int]
    result: tuple[int, int]


class _Band(NamedTuple):
    """A block of the matrix that resizes one axis: ``result[target] = weights @ masks[source]``."""

    target: slice
    source: slice
    weights: Tensor


@lru_cache(maxsize=256)  # data sets have few different image sizes
def _bands(source: int, padded: int, image: int, result: int, band: int, device: torch.device) -> list[_Band]:
    """Both bilinear resizes and the crop along one axis, as one banded matrix: their results for the unit vectors."""
    units = torch.eye(source, dtype=torch.float32, device='cpu')[None]
    resized = F.interpolate(units, padded, mode='linear', align_corners=False)[..., :image]
    matrix = F.interpolate(resized, result, mode='linear', align_corners=False)[0].T  # result, source
    bands = []
    for start in range(0, result, band):
        rows = matrix[start:start + band]
        used = rows.any(dim=0).nonzero().flatten().tolist()
        columns = slice(used[0], used[-1] + 1)
        bands.append(_Band(slice(start, start + band), columns, rows[:, columns].contiguous().to(device)))
    return bands


def resized_strips(masks: Tensor, sizes: Sizes) -> Iterator[tuple[slice, slice, Tensor]]:
    """Resize masks to the padded input, crop them to the image, and resize them to the result, both bilinearly.

    Args:
        masks: Probabilities in float32, (N, h, w).
        sizes: The sizes; that of the result is (H, W).

    Yields:
        Indices of n masks, indices of r rows of the result, and the masks' probabilities in these rows, (r, n, W).
    """
    width = sizes.result[1]
    groups = _groups(len(masks), masks.shape[1] * width, masks.device)
    rows = columns = BAND
    if masks.device.type != CACHED and groups:
        rows, columns = max(STRIP_VALUES // (groups[0].stop * width), 1), width
    vertical, horizontal = (_bands(*lengths, band, masks.device)
                            for *lengths, band in zip(masks.shape[1:], *sizes, (rows, columns), strict=True))
    for group in groups:
        low = masks[group].transpose(0, 1).contiguous()  # h, n, w
        wide = torch.cat([low[..., band.source] @ band.weights.T for band in horizontal], dim=-1)  # h, n, W
        for band in vertical:
            yield group, band.target, torch.tensordot(band.weights, wide[band.source], dims=1)


def _groups(number: int, values: int, device: torch.device) -> list[slice]:
    """Indices of the masks that are resized at once, if each of them takes so many values."""
    size = max(STRIP_VALUES // values, 1)
    if device.type == CACHED:
        size = min(size, GROUP)
    return [slice(start, min(start + size, number)) for start in range(0, number, size)]


def assign_pixels(masks: Tensor, scores: Tensor, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Assign every pixel to the mask with the largest product of score (N,), not negative, and probability (N, h, w).

    Returns:
        Index of each pixel's mask, (H, W), the lowest in a tie; each mask's number of pixels with a probability of at
        least 0.5, (N,).
    """
    best = masks.new_full(sizes.result, -1)
    owner = torch.zeros_like(best, dtype=torch.long)
    areas = torch.zeros_like(scores, dtype=torch.long)
    for group, rows, strip in resized_strips(masks, sizes):
        # Here and below, comparisons write floats: on a CPU, operations on bools are several times slower.
        areas[group] += torch.ge(strip, 0.5, out=torch.empty_like(strip)).sum(dim=(0, 2)).long()
        highest, winner = _max_(strip.mul_(scores[group, None]))
        better = highest > best[rows]
        best[rows] = torch.where(better, highest, best[rows])
        owner[rows] = torch.where(better, winner + group.start, owner[rows])
    return owner, areas


def _max_(values: Tensor) -> tuple[Tensor, Tensor]:
    """``values.max(dim=1)`` of (r, n, W), twice as fast on a CPU. Overwrites ``values``."""
    number = values.shape[1]
    highest = values.amax(dim=1)
    ranks = torch.arange(number, 0, -1, dtype=values.dtype, device=values.device)  # the first of equals ranks highest
    return highest, number - values.eq_(highest[:, None]).mul_(ranks[:, None]).amax(dim=1).long()


def binarize(masks: Tensor, threshold: float, sizes: Sizes) -> Tensor:
    """Binary masks, (N, H, W): where the resized probabilities (N, h, w) exceed the threshold."""
    result = masks.new_empty((len(masks), *sizes.result), dtype=torch.bool)
    for group, rows, strip in resized_strips(masks, sizes):
        result[group, rows] = (strip > threshold).transpose(0, 1)
    return result


def encode(masks: Tensor, threshold: float, sizes: Sizes) -> list[dict[str, Any]]:
    """The masks of ``binarize`` as run-length encodings of pycocotools, of which few are in memory at once."""
    encodings: list[dict[str, Any]] = []
    for group in _groups(len(masks), sizes.result[0] * sizes.result[1], masks.device):
        binary = binarize(masks[group], threshold, sizes).cpu().numpy().view(np.uint8)
        encodings += [mask_utils.encode(cv2.transpose(mask).T) for mask in binary]  # faster than asfortranarray
    return encodings
