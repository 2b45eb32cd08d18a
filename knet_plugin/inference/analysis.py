"""Which objects a model finds, and what is wrong with the others."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pycocotools.mask as mask_utils

from knet_plugin.inference.confusion import partners
from knet_plugin.visualization import PARTS, VOID, Result

__all__ = ['KINDS', 'Analysis', 'Record', 'boundary_iou']

FOUND, FALSE = 'found', 'false'
CONCERNED = ''  # a prediction that is part of what is wrong with an object
KINDS = (FOUND, 'wrong class', 'split', 'merged', 'inexact', 'missed', FALSE)
SIZES = (('small', 32**2), ('medium', 96**2), ('large', np.inf))  # COCO's, by area in pixels
TOUCHING = 0.1  # IoU below which a mask has nothing to do with an object, as in TIDE (arXiv 2008.08115)


class Record(NamedTuple):
    """An object of the ground truth, or a prediction without one."""

    image: str
    label: int
    area: int
    kind: str  # of KINDS, or CONCERNED
    iou: float = 0.  # of a found object
    boundary_iou: float = 0.

    @property
    def is_prediction(self) -> bool:
        """Whether it is a prediction that finds no object, a false positive."""
        return self.kind in (FALSE, CONCERNED)


class _Objects(NamedTuple):
    labels: np.ndarray
    masks: list[Any]  # run-length encodings, without what is void in the ground truth
    ignored: np.ndarray  # mostly void


class Analysis:
    """Sorts the objects of the ground truth by what the model makes of them.

    A prediction whose mask overlaps an object with an IoU above 0.5 finds it, or has the wrong class. Of the other
    objects, one is

    - split, if at least two predictions of its class lie in it and cover half of it;
    - merged, if a prediction of its class covers half of it and half of another object of the class;
    - inexact, if a prediction of its class overlaps it with an IoU above 0.1;
    - missed, otherwise.

    A prediction that overlaps no object that much is false. Semantic segmentation has one object for each class of an
    image. What is void in the ground truth belongs to no mask, and a prediction that is mostly void is not false.

    Args:
        classes: Names.
        score_thr: Objects with a lower score do not count.

    Attributes:
        records: What was found, of all images.
    """

    def __init__(self, classes: Sequence[str], score_thr: float = 0.3) -> None:
        self._classes = classes
        self._score_thr = score_thr
        self.records: list[Record] = []

    def add(self, image: str, result: Result, truth: Result) -> float | None:
        """Add an image; return its panoptic quality in percent, or None if it has no ground truth or no objects."""
        part = next((each for each in PARTS if each in result.parts and each in truth.parts), None)
        if part is None:
            return None
        void = {'panoptic': truth.panoptic == 0, 'semantic': truth.semantic == VOID}.get(part)
        records = _compare(image, _objects(result, part, self._score_thr, void), _objects(truth, part, 0., void))
        self.records += records
        return _quality(records)[0] if records else None

    def write(self, folder: Path) -> None:
        """Write ``classes.csv``, ``sizes.csv`` and ``images.csv``."""
        _write(folder / 'classes.csv', 'class', self._classes, self.records, lambda each: self._classes[each.label])
        _write(folder / 'sizes.csv', 'size', [name for name, _ in SIZES], self.records,
               lambda each: next(name for name, limit in SIZES if each.area < limit))
        images = sorted({each.image for each in self.records})
        _write(folder / 'images.csv', 'image', images, self.records, lambda each: each.image)


def boundary_iou(one: np.ndarray, other: np.ndarray) -> float:
    """IoU of the seams within two masks (H, W) uint8, whose width is 2 % of the image's diagonal (arXiv 2103.16562)."""
    width = max(1, round(0.02 * float(np.hypot(*one.shape))))
    block = np.ones((3, 3), np.uint8)
    seams: list[Any] = [mask - cv2.erode(np.pad(mask, 1), block, iterations=width)[1:-1, 1:-1] for mask in (one, other)]
    union = np.count_nonzero(seams[0] | seams[1])
    return np.count_nonzero(seams[0] & seams[1]) / union if union else 0.


def _objects(result: Result, part: str, score_thr: float, void: Any) -> _Objects:
    if part == 'instances':
        kept = [each for each in result.instances or () if each.score is None or each.score >= score_thr]
        return _Objects(np.array([each.label for each in kept], int), [each.mask for each in kept],
                        np.zeros(len(kept), bool))
    plane: Any = getattr(result, part)
    if part == 'panoptic':
        values, labels = [each.id for each in result.segments], [each.label for each in result.segments]
    else:
        values = labels = [int(value) for value in np.unique(plane) if value != VOID]
    planes = [plane == value for value in values]
    ignored = np.array([np.count_nonzero(each & void) > each.sum() / 2 for each in planes], bool)
    masks = [mask_utils.encode(np.asfortranarray(each & ~void, np.uint8)) for each in planes]
    return _Objects(np.array(labels, int), masks, ignored)


def _compare(image: str, found: _Objects, true: _Objects) -> list[Record]:
    shape = len(found.masks), len(true.masks)
    iou, in_true, of_true = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    if all(shape):
        iou = mask_utils.iou(found.masks, true.masks, [0] * shape[1])
        in_true = mask_utils.iou(found.masks, true.masks, [1] * shape[1])  # share of the prediction
        of_true = mask_utils.iou(true.masks, found.masks, [1] * shape[0]).T  # share of the object
    same = found.labels[:, None] == true.labels
    partner = partners(np.where(same, iou, 0))
    free = np.array([i not in partner.values() for i in range(shape[0])], bool)
    covered = same & (of_true > 0.5)
    records = []
    for j, (label, mask) in enumerate(zip(true.labels.tolist(), true.masks, strict=True)):
        inside = same[:, j] & (in_true[:, j] > 0.5)
        both = 0., 0.
        if j in partner:
            kind = FOUND
            both = iou[partner[j], j], boundary_iou(mask_utils.decode(found.masks[partner[j]]), mask_utils.decode(mask))
        elif (free & ~same[:, j] & (iou[:, j] > 0.5)).any():
            kind = 'wrong class'
        elif inside.sum() > 1 and of_true[inside, j].sum() > 0.5:
            kind = 'split'
        elif (covered[:, j] & (covered.sum(axis=1) > 1)).any():
            kind = 'merged'
        else:
            kind = 'inexact' if (same[:, j] & (iou[:, j] > TOUCHING)).any() else 'missed'
        records.append(Record(image, label, int(mask_utils.area(mask)), kind, *both))
    alone = iou.max(axis=1, initial=0) <= TOUCHING
    return records + [Record(image, int(found.labels[i]), int(mask_utils.area(found.masks[i])),
                             FALSE if alone[i] else CONCERNED) for i in np.flatnonzero(free & ~found.ignored)]


def _quality(records: Sequence[Record]) -> tuple[float, float, float, float]:
    """Panoptic, segmentation and recognition quality, and mean boundary IoU of what was found, in percent."""
    found = [each for each in records if each.kind == FOUND]
    unmatched = sum(each.is_prediction for each in records)
    objects = len(records) - unmatched
    recognition = len(found) / max((len(found) + objects + unmatched) / 2, 0.5)
    segmentation, boundary = (float(np.mean(values)) if values else 0. for values in (
        [each.iou for each in found], [each.boundary_iou for each in found]))
    return 100 * recognition * segmentation, 100 * segmentation, 100 * recognition, 100 * boundary


def _write(path: Path, title: str, names: Iterable[str], records: Sequence[Record],
           name_of: Callable[[Record], str]) -> None:
    groups: dict[str, list[Record]] = {name: [] for name in names}
    for record in records:
        groups[name_of(record)].append(record)
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerow([title, 'objects', *KINDS, 'PQ', 'SQ', 'RQ', 'boundary IoU'])
        for name, group in groups.items():
            if group:
                counts = [sum(record.kind == kind for record in group) for kind in KINDS]
                objects = sum(not record.is_prediction for record in group)
                writer.writerow([name, objects, *counts, *(f'{value:.1f}' for value in _quality(group))])
