"""What is drawn: a part of a result as one map of regions, each with its colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from knet_plugin.visualization.colours import NEAR, Colour, difference, shades
from knet_plugin.visualization.photo import strips
from knet_plugin.visualization.result import PARTS, VOID, Instance, Result

__all__ = ['Region', 'region_map']

_MOST = 65535  # regions on one map
_NO_CLASS = (128, 128, 128)
_NEAR_STEPS = (1, 3, 6)  # objects this many 500ths of the image apart are neighbours


@dataclass(frozen=True)
class Region:
    """A segment, an object or a class to draw."""

    label: int
    is_thing: bool
    score: float | None = None
    colour: Colour = (0, 0, 0)
    kernel: int | None = None  # that found it


def region_map(result: Result, what: str, colours: Sequence[Colour],
               score_thr: float) -> tuple[np.ndarray, list[Region]]:
    """Return an (H, W) uint16 map and its regions: ``map == i + 1`` is region i, 0 stays as it is.

    Large regions come first; smaller objects lie on larger ones. The order of ``result.segments`` and
    ``result.instances`` does not matter.

    Args:
        result: What to draw.
        what: 'panoptic', 'instances' or 'semantic'.
        colours: RGB of each class.
        score_thr: Lowest score of an object; those without score are always drawn.

    Raises:
        ValueError: The result has no such part, or ``what`` is none of these.
    """
    if what not in PARTS:
        raise ValueError(f'what must be one of {", ".join(PARTS)}, got {what!r}')
    if what == 'panoptic' and result.panoptic is not None:
        index, regions = _number_by_area(result.panoptic, {
            segment.id: Region(segment.label, segment.is_thing, segment.score, kernel=segment.kernel)
            for segment in result.segments if _is_kept(segment.score, score_thr) and segment.id > 0})
    elif what == 'semantic' and result.semantic is not None:
        labels = {label for rows in strips(*result.size) for label in np.unique(result.semantic[rows]).tolist()}
        index, regions = _number_by_area(result.semantic, {label: Region(label, False) for label in labels
                                                           if label >= 0 and label != VOID})
    elif what == 'instances' and result.instances is not None:
        kept = [instance for instance in result.instances if _is_kept(instance.score, score_thr)]
        index, regions = _paint_instances(kept, result.size)
    else:
        raise ValueError(f'what={what!r}, but the result has only: {", ".join(result.parts) or "nothing"}')
    return index, _coloured(index, regions, colours)


def _is_kept(score: float | None, score_thr: float) -> bool:
    return score is None or score >= score_thr


def _number_by_area(ids: np.ndarray, regions: dict[int, Region]) -> tuple[np.ndarray, list[Region]]:
    """Number the regions of a map of ids by decreasing area; those without a pixel are left out."""
    index = np.zeros(ids.shape, np.uint16)
    if not regions:
        return index, []
    numbers = np.array(sorted(regions)[:_MOST])
    areas = np.zeros(len(numbers) + 1, np.int64)
    for rows in strips(*ids.shape):
        places = np.minimum(np.searchsorted(numbers, ids[rows]), len(numbers) - 1)
        index[rows] = np.where(numbers[places] == ids[rows], places + 1, 0)
        areas += np.bincount(index[rows].ravel(), minlength=len(areas))
    order = np.argsort(-areas[1:], kind='stable')[:np.count_nonzero(areas[1:])]
    table = np.zeros(len(areas), np.uint16)
    table[order + 1] = np.arange(1, len(order) + 1)
    for rows in strips(*ids.shape):
        index[rows] = table[index[rows]]
    return index, [regions[number] for number in numbers[order].tolist()]


def _paint_instances(instances: Sequence[Instance], size: tuple[int, int]) -> tuple[np.ndarray, list[Region]]:
    """Paint objects onto one map, decoding one mask at a time."""
    import pycocotools.mask as mask_utils  # here, because semantic segmentation works without it

    areas = {id(instance): int(mask_utils.area(instance.mask)) for instance in instances}
    found = sorted((instance for instance in instances if areas[id(instance)]), key=lambda instance: (
        -areas[id(instance)], instance.label, -(instance.score or 0), instance.mask['counts']))[:_MOST]
    index = np.zeros(size, np.uint16)
    for number, instance in enumerate(found, start=1):
        if tuple(instance.mask['size']) != tuple(size):
            raise ValueError(f'the mask of an instance of label {instance.label} has the size '
                             f'{tuple(instance.mask["size"])}, but the result {tuple(size)}')
        x, y, width, height = mask_utils.toBbox(instance.mask).astype(int)
        box = slice(y, y + height), slice(x, x + width)
        index[box][mask_utils.decode(instance.mask)[box] > 0] = number
    return index, [Region(instance.label, True, instance.score, kernel=instance.kernel) for instance in found]


def _coloured(index: np.ndarray, regions: list[Region], colours: Sequence[Colour]) -> list[Region]:
    """Give each region its class's colour, and neighbouring objects different ones.

    Objects take shades of their class's colour, or all hues if all objects are of one class.
    """
    things = [number for number, region in enumerate(regions) if region.is_thing]
    wide = len({regions[number].label for number in things}) == 1
    neighbours = _neighbours(index)
    chosen = [replace(region, colour=colours[region.label] if 0 <= region.label < len(colours) else _NO_CLASS)
              for region in regions]
    for place, number in enumerate(things):
        options = shades(chosen[number].colour, wide)
        start = place % len(options) if wide else 0  # else objects apart would all have the class's colour
        taken = [chosen[other].colour for other in neighbours.get(number, ())
                 if other < number and chosen[other].is_thing]
        # The first that differs enough from all neighbours, or else the one that differs most.
        colour = max(options[start:] + options[:start], key=lambda option, taken=taken: min(  # type: ignore[misc]
            [2 * NEAR, *(difference(option, other) for other in taken)]))
        chosen[number] = replace(chosen[number], colour=colour)
    return chosen


def _neighbours(index: np.ndarray) -> dict[int, set[int]]:
    """Return the regions that touch each region or are near to it."""
    found: dict[int, set[int]] = {}
    step = max(1, max(index.shape) // 500)
    coarse = index[::step, ::step]
    for shift in _NEAR_STEPS:
        for first, second in ((coarse[:, :-shift], coarse[:, shift:]), (coarse[:-shift], coarse[shift:])):
            differ = (first != second) & (first > 0) & (second > 0)
            pairs = np.unique(first[differ].astype(np.int64) << 16 | second[differ])
            for one, other in zip((pairs >> 16).tolist(), (pairs & 0xFFFF).tolist(), strict=True):
                found.setdefault(one - 1, set()).add(other - 1)
                found.setdefault(other - 1, set()).add(one - 1)
    return found
