"""Writing the files of one split of a prepared folder, image by image."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from knet_plugin.datasets.description import DataDescription
from knet_plugin.datasets.panoptic_png import measure_segments, segment_colours
from knet_plugin.datasets.prepare.compose import Segments, compose
from knet_plugin.datasets.prepare.sample import Region, Sample

__all__ = ['SplitWriter']

_VOID = 255


class SplitWriter:
    """Writes images and annotations of a split; the JSON files come with ``close``.

    Args:
        description: Of the folder, in whose ``root`` the files go.
        split: 'train' or 'val'.
        fill: Class of stuff that gets all pixels without region, or None.

    Attributes:
        count: Number of objects of each thing, and of images with each stuff.
        num_images: Number of images.
    """

    def __init__(self, description: DataDescription, split: str, fill: str | None):
        self.description = description
        self.split = split
        self.count: Counter[str] = Counter()
        self.num_images = 0
        self._labels = {name: label for label, name in enumerate(description.classes)}
        self._fill = None if fill is None else self._labels[fill]
        self._images: list[dict[str, Any]] = []
        self._instances: list[dict[str, Any]] = []
        self._panoptic: list[dict[str, Any]] = []

    def add(self, sample: Sample, size: tuple[int, int], regions: Sequence[Region]) -> Segments | None:
        """Write an image of (height, width), and return its map of segments, if there is stuff."""
        root, things = self.description.root, self.description.things
        _link(sample.image, root / 'images' / self.split / sample.name)
        self.num_images += 1
        self._images.append(dict(id=self.num_images, file_name=sample.name, height=size[0], width=size[1]))
        for region in regions:
            if region.name in things:
                self._instances.append(self._instance(region))
                self.count[region.name] += 1
        if not self.description.stuff:
            return None
        segments = compose(regions, size, self._labels, len(things), self._fill)
        self.count.update(self.description.classes[label] for label in segments.labels if label >= len(things))
        png = PurePosixPath(sample.name).with_suffix('.png')
        _write_png(root / 'labels' / self.split / png, segments.label_map(_VOID))
        if things:
            _write_png(root / f'annotations/panoptic_{self.split}' / png, segment_colours(segments.ids))
            infos = [dict(info, category_id=segments.labels[number - 1] + 1, iscrowd=int(segments.crowd[number - 1]))
                     for number, info in measure_segments(segments.ids).items()]
            self._panoptic.append(dict(image_id=self.num_images, file_name=str(png), segments_info=infos))
        return segments

    def close(self) -> None:
        """Write the JSON files."""
        things, folder = self.description.things, self.description.root / 'annotations'
        categories = [dict(id=i, name=name, isthing=int(name in things))
                      for i, name in enumerate(self.description.classes, start=1)]
        files = {}
        if things:
            files['instances'] = dict(categories=categories[:len(things)], annotations=self._instances)
            if self.description.stuff:
                files['panoptic'] = dict(categories=categories, annotations=self._panoptic)
        for kind, content in files.items():
            folder.mkdir(exist_ok=True)
            (folder / f'{kind}_{self.split}.json').write_text(json.dumps(dict(images=self._images, **content)))

    def _instance(self, region: Region) -> dict[str, Any]:
        from pycocotools import mask as mask_utils

        rle = dict(size=list(region.rle['size']), counts=region.rle['counts'])
        if isinstance(rle['counts'], bytes):
            rle['counts'] = rle['counts'].decode()
        return dict(id=len(self._instances) + 1, image_id=self.num_images,
                    category_id=self._labels[region.name or ''] + 1, iscrowd=int(region.crowd),
                    area=int(mask_utils.area(region.rle)), bbox=mask_utils.toBbox(region.rle).tolist(),
                    segmentation=rle)


def _link(source: Path, target: Path) -> None:
    """Make a hard link, or a copy where the file system has none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source = source.resolve()
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode('.png', pixels)[1].tobytes())
