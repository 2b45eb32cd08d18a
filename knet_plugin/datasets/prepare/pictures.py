"""Annotated images, so that the user sees what was understood."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from knet_plugin.datasets.description import DataDescription
from knet_plugin.datasets.prepare.compose import Segments
from knet_plugin.datasets.prepare.sample import Region, Sample
from knet_plugin.visualization import Instance, Result, Segment, draw, palette

__all__ = ['draw_sample']


def draw_sample(description: DataDescription, sample: Sample, size: tuple[int, int], regions: Sequence[Region],
                segments: Segments | None) -> None:
    """Draw an annotated image of (height, width) into ``samples/``."""
    from pycocotools import mask as mask_utils

    image = _read_rgb(sample.image)
    result = Result(size)
    if segments is None:
        what = 'instances'
        result.instances = []
        for region in regions:
            if region.name in description.things:
                x, y, width, height = mask_utils.toBbox(region.rle).tolist()
                label = description.things.index(region.name)
                result.instances.append(Instance(label, None, (x, y, x + width, y + height), region.rle))
    elif description.things:
        what = 'panoptic'
        result.panoptic = segments.ids
        result.segments = [Segment(i, label, label < len(description.things))
                           for i, label in enumerate(segments.labels, start=1)]
    else:
        what = 'semantic'
        result.semantic = segments.label_map(255)
    picture = draw(image, result, description.classes, what, palette(len(description.classes)))
    path = description.root / 'samples' / PurePosixPath(sample.name.replace('/', '_')).with_suffix('.jpg')
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(cv2.imencode('.jpg', picture[..., ::-1])[1].tobytes())


def _read_rgb(path: Path) -> np.ndarray:
    """Read an image of any depth, turned as its EXIF data says; TIFF files of many channels have none."""
    image = cv2.imread(str(path), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    if image is None:
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError(f'{path}: OpenCV cannot read the image; save it as PNG or JPEG')
    return image[..., ::-1] if image.ndim == 3 and image.shape[2] == 3 else image
