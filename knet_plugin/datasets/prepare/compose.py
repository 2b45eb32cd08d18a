"""One map of segments from the regions of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from knet_plugin.datasets.prepare.sample import Region

__all__ = ['Segments', 'compose']


@dataclass
class Segments:
    """A panoptic map.

    Attributes:
        ids: (H, W) int32; 0 is void.
        labels: Class index of each segment id, from id 1.
        crowd: Whether each segment is a group of objects.
    """

    ids: np.ndarray
    labels: list[int]
    crowd: list[bool]

    def label_map(self, void: int) -> np.ndarray:
        """Return the (H, W) map of class indices, in 16 bits if there are many classes."""
        table = np.array([void, *self.labels])
        return table.astype(np.uint8 if table.max() < 256 else np.uint16)[self.ids]


def compose(regions: Sequence[Region], size: tuple[int, int], labels: Mapping[str, int], num_things: int,
            fill: int | None) -> Segments:
    """Paint stuff first, one segment for each class, then things, the large ones first, and last what is ignored.

    Args:
        regions: Of one image.
        size: Its (height, width).
        labels: Index of each class; things come first. Other classes are not painted.
        num_things: Number of thing classes.
        fill: Class index of all pixels without region, or None.
    """
    from pycocotools import mask as mask_utils

    def pixels(region: Region) -> np.ndarray:
        return mask_utils.decode(region.rle).astype(bool)

    ids = np.zeros(size, np.int32)
    segments: list[tuple[int, bool]] = []  # label and crowd; the id is the position, from 1
    stuff_ids: dict[int, int] = {}
    known = [(labels[region.name], region) for region in regions if region.name is not None and region.name in labels]
    for label, region in known:
        if label >= num_things:
            if label not in stuff_ids:
                segments.append((label, False))
                stuff_ids[label] = len(segments)
            ids[pixels(region)] = stuff_ids[label]
    things = [(label, region) for label, region in known if label < num_things]
    for label, region in sorted(things, key=lambda each: (not each[1].crowd, -int(mask_utils.area(each[1].rle)))):
        segments.append((label, region.crowd))
        ids[pixels(region)] = len(segments)
    ignored = np.zeros(size, bool)
    for region in regions:
        if region.name is None:
            ignored |= pixels(region)
    ids[ignored] = 0
    if fill is not None:
        segments.append((fill, False))
        ids[(ids == 0) & ~ignored] = len(segments)
    return _without_hidden(ids, segments)


def _without_hidden(ids: np.ndarray, segments: Sequence[tuple[int, bool]]) -> Segments:
    """Number the segments that have pixels 1, 2, 3, ..."""
    seen = np.bincount(ids.ravel(), minlength=len(segments) + 1)[1:] > 0
    numbers = np.concatenate([[0], np.cumsum(seen) * seen]).astype(np.int32)
    kept = [segment for segment, is_seen in zip(segments, seen, strict=True) if is_seen]
    return Segments(numbers[ids], [label for label, _ in kept], [crowd for _, crowd in kept])
