"""What is drawn: the parts of a result as one map of regions, each with its colour and text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from knet_plugin.visualization.colours import NEAR, Colour, difference, shades
from knet_plugin.visualization.photo import strips
from knet_plugin.visualization.result import VOID, Instance, Result
from knet_plugin.visualization.run_lengths import decode_columns

__all__ = ['Region', 'class_name', 'region_map']

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


def class_name(label: int, classes: Sequence[str]) -> str:
    """Return the name of a label on one line, cut to 28 characters; labels outside ``classes`` are 'class 7'."""
    name = ' '.join(str(classes[label]).split()) if 0 <= label < len(classes) else ''
    if not name:
        return f'class {label}'
    return name if len(name) <= 28 else f'{name[:27]}…'


def region_map(result: Result, what: str, colours: Sequence[Colour],
               score_thr: float) -> tuple[np.ndarray, list[Region]]:
    """Return an (H, W) uint16 map and its regions: ``map == i + 1`` is region i, 0 stays as it is.

    Regions come in order of decreasing area; what has no pixels or a score below ``score_thr`` is left out. Smaller
    objects lie on larger ones. The order of ``result.segments`` and ``result.instances`` does not matter.

    Args:
        result: What to draw.
        what: 'panoptic', 'instances' or 'semantic'.
        colours: RGB of each class.
        score_thr: Lowest score of an object; those without score are always drawn.

    Raises:
        ValueError: The result has no such part, or ``what`` is none of these.
    """
    parts = {'panoptic': result.panoptic, 'instances': result.instances, 'semantic': result.semantic}
    if what not in parts:
        raise ValueError(f'what must be one of {", ".join(parts)}, got {what!r}')
    if what == 'panoptic' and result.panoptic is not None:
        regions_by_id = {segment.id: Region(segment.label, segment.is_thing, segment.score)
                         for segment in result.segments if _kept(segment.score, score_thr) and segment.id > 0}
        index, regions = _number_by_area(result.panoptic, regions_by_id)
    elif what == 'semantic' and result.semantic is not None:
        index, regions = _number_by_area(result.semantic, _regions_of_labels(result.semantic))
    elif what == 'instances' and result.instances is not None:
        index, regions = _paint_instances(result.instances, result.size, score_thr)
    else:
        raise ValueError(f'what={what!r}, but the result has only: '
                         f'{", ".join(part for part, value in parts.items() if value is not None) or "nothing"}')
    return index, _coloured(index, regions, colours)


def _kept(score: float | None, score_thr: float) -> bool:
    return score is None or score >= score_thr


def _regions_of_labels(semantic: np.ndarray) -> dict[int, Region]:
    labels: set[int] = set()
    for rows in strips(*semantic.shape):
        labels.update(np.unique(semantic[rows]).tolist())
    return {label: Region(label, is_thing=False) for label in labels if label >= 0 and label != VOID}


def _number_by_area(ids: np.ndarray, regions: dict[int, Region]) -> tuple[np.ndarray, list[Region]]:
    """Number the regions of a map of ids by decreasing area."""
    numbers = sorted(regions)[:_MOST]
    index = np.zeros(ids.shape, np.uint16)
    areas = np.zeros(len(numbers) + 1, np.int64)
    for rows in strips(*ids.shape):
        index[rows] = _lookup(ids[rows], np.array(numbers, np.int64))
        areas += np.bincount(index[rows].ravel(), minlength=len(areas))
    order = sorted(np.flatnonzero(areas[1:]).tolist(), key=lambda number: (-areas[number + 1], number))
    table = np.zeros(len(areas), np.uint16)
    table[np.array(order, np.int64) + 1] = np.arange(1, len(order) + 1)
    for rows in strips(*ids.shape):
        index[rows] = table[index[rows]]
    return index, [regions[numbers[number]] for number in order]


def _lookup(ids: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return 1 + the place of each id in the sorted ``numbers``; 0 where it is not among them."""
    if len(numbers) == 0:
        return np.zeros(ids.shape, np.uint16)
    low, high = int(numbers[0]), int(numbers[-1])
    if high - low < 1 << 16:
        table = np.zeros(high - low + 3, np.uint16)  # one more at either end, for ids outside
        table[numbers - low + 1] = np.arange(1, len(numbers) + 1)
        return table[np.clip(ids, low - 1, high + 1).astype(np.int64) - (low - 1)]
    places = np.minimum(np.searchsorted(numbers, ids), len(numbers) - 1)
    return np.where(numbers[places] == ids, places + 1, 0).astype(np.uint16)


def _paint_instances(instances: Sequence[Instance], size: tuple[int, int],
                     score_thr: float) -> tuple[np.ndarray, list[Region]]:
    """Paint objects onto one map, decoding one mask at a time."""
    kept = [instance for instance in instances if _kept(instance.score, score_thr)]
    from pycocotools import mask as coco_mask  # semantic segmentation works without it

    areas = {id(instance): int(coco_mask.area(instance.mask)) for instance in kept}
    kept.sort(key=lambda instance: (-areas[id(instance)], instance.label, -(instance.score or 0),
                                    instance.mask['counts']))
    painted = np.zeros(size, np.uint16)
    regions = {}
    for number, instance in enumerate(kept[:_MOST], start=1):
        if tuple(instance.mask['size']) != tuple(size):
            raise ValueError(f'the mask of an instance of label {instance.label} has the size '
                             f'{tuple(instance.mask["size"])}, but the result {tuple(size)}')
        if areas[id(instance)] == 0:
            continue
        x, mask = decode_columns(instance.mask)
        rows = np.flatnonzero(mask.any(axis=1))
        top, bottom = rows[0], rows[-1] + 1
        painted[top:bottom, x:x + mask.shape[1]][mask[top:bottom]] = number
        regions[number] = Region(instance.label, True, instance.score)
    return _number_by_area(painted, regions)


def _coloured(index: np.ndarray, regions: list[Region], colours: Sequence[Colour]) -> list[Region]:
    """Give each region its class's colour, and neighbouring objects different ones.

    Objects take shades of their class's colour, or all hues if all objects are of one class.
    """
    things = [number for number, region in enumerate(regions) if region.is_thing]
    wide = len({regions[number].label for number in things}) == 1
    neighbours = _neighbours(index, things)
    chosen = [replace(region, colour=colours[region.label] if 0 <= region.label < len(colours) else _NO_CLASS)
              for region in regions]
    for place, number in enumerate(things):
        options = shades(chosen[number].colour, wide)
        start = place % len(options) if wide else 0  # else objects apart would all have the class's colour
        taken = [chosen[other].colour for other in neighbours.get(number, ()) if other < number]
        chosen[number] = replace(chosen[number], colour=_most_different(options[start:] + options[:start], taken))
    return chosen


def _most_different(options: Iterable[Colour], taken: Sequence[Colour]) -> Colour:
    """Return the first option that is not near to a taken colour, or else the one that is least near."""
    best, best_distance = (0, 0, 0), -1.0
    for option in options:
        distance = min((difference(option, colour) for colour in taken), default=np.inf)
        if distance >= 2 * NEAR:
            return option
        if distance > best_distance:
            best, best_distance = option, distance
    return best


def _neighbours(index: np.ndarray, things: list[int]) -> dict[int, set[int]]:
    """Return the objects that touch each object or are near to it."""
    wanted = set(things)
    found: dict[int, set[int]] = {}
    step = max(1, max(index.shape) // 500)
    coarse = index[::step, ::step]
    maps = [(index[rows.start:rows.stop + 1], 1) for rows in strips(*index.shape)] if step > 1 else []
    for numbers, shift in [*maps, *((coarse, shift) for shift in _NEAR_STEPS)]:
        for first, second in ((numbers[:, :-shift], numbers[:, shift:]), (numbers[:-shift], numbers[shift:])):
            differ = (first != second) & (first > 0) & (second > 0)
            pairs = np.unique(first[differ].astype(np.int64) << 16 | second[differ])
            for pair in pairs.tolist():
                one, other = (pair >> 16) - 1, (pair & 0xFFFF) - 1
                if one in wanted and other in wanted:
                    found.setdefault(one, set()).add(other)
                    found.setdefault(other, set()).add(one)
    return found
