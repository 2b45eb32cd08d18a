"""Annotation files of Shapes. Category ``i + 1`` is ``CLASSES[i]`` in each of them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as mask_utils

from knet_plugin.datasets.panoptic_png import segment_colours
from knet_plugin.datasets.shapes.scene import CLASSES, SEGMENTS_PER_CLASS, THING_CLASSES, Scene

# Without chroma subsampling, because colour carries the class.
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 3)


def write_scene(root: Path, split: str, name: str, scene: Scene) -> list[dict[str, Any]]:
    """Write an image and its label maps; returns its COCO annotations, the masks as compressed RLE."""
    ids = scene.segment_map
    _write_image(root / split / f'{name}.jpg', scene.image[..., ::-1], _JPEG)
    _write_image(root / f'annotations/panoptic_{split}/{name}.png', segment_colours(ids), _PNG)
    _write_image(root / f'annotations/semantic_{split}/{name}.png', (ids // SEGMENTS_PER_CLASS).astype(np.uint8), _PNG)

    segments = np.unique(ids[ids > 0])
    rles = mask_utils.encode(np.asfortranarray(ids[..., None] == segments, np.uint8))
    return [{
        'id': segment,
        'category_id': segment // SEGMENTS_PER_CLASS,
        'area': int(mask_utils.area(rle)),
        'bbox': mask_utils.toBbox(rle).astype(int).tolist(),  # x, y, width, height
        'iscrowd': int(segment in scene.crowds),
        'segmentation': {'size': rle['size'], 'counts': rle['counts'].decode()},
    } for segment, rle in zip(segments.tolist(), rles, strict=True)]


def write_annotations(root: Path, split: str, size: tuple[int, int], images: Iterable[list[dict[str, Any]]]) -> None:
    """Write the COCO files of a split from the annotations of each image."""
    infos: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    panoptic: list[dict[str, Any]] = []
    for index, annotations in enumerate(images):
        infos.append({'id': index, 'file_name': f'{index:06d}.jpg', 'height': size[0], 'width': size[1]})
        for annotation in annotations:
            if annotation['category_id'] <= len(THING_CLASSES):
                # COCO's evaluation takes annotation id 0 for "no match".
                instances.append({**annotation, 'id': len(instances) + 1, 'image_id': index})
        segments = [{key: value for key, value in annotation.items() if key != 'segmentation'}
                    for annotation in annotations]
        panoptic.append({'image_id': index, 'file_name': f'{index:06d}.png', 'segments_info': segments})
    categories = [{'id': i, 'name': name, 'isthing': int(name in THING_CLASSES)}
                  for i, name in enumerate(CLASSES, start=1)]
    for task, entries, known in (('instances', instances, categories[:len(THING_CLASSES)]),
                                 ('panoptic', panoptic, categories)):
        content = {'info': {'description': f'Shapes, {task}, {split}'}, 'images': infos, 'annotations': entries,
                   'categories': known}
        (root / f'annotations/{task}_{split}.json').write_text(json.dumps(content, separators=(',', ':')))


def _write_image(path: Path, image: np.ndarray, parameters: tuple[int, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image, parameters):  # on a full disk, for example
        raise OSError(f'cannot write {path}')
