"""The formats of Shapes on disk: one split at a time, drawn by one process or several.

Category ids are the same in all formats: things first, then stuff, from 1.
"""

import functools
import json
import multiprocessing
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as mask_utils

from knet_plugin.datasets.shapes.make import CLASSES, GENERATOR_VERSION, SEGMENTS_PER_CLASS, THING_CLASSES, Scene, draw_scene
from knet_plugin.datasets.shapes.style import Style

__all__ = ['SPLITS', 'dump_json', 'write_split']

SPLITS = ('train', 'val')

# Colours carry the classes, so they must not be thinned out as JPEG does by default.
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 3)
_CHUNK = 16  # images handed to a worker at a time


def write_split(root: Path, split: str, count: int, size: tuple[int, int], seed: int, style: Style,
                workers: int) -> None:
    """Write the images of one split, their label maps and the two JSON files.

    Args:
        root: Directory of the data set, without this split so far.
        split: One of ``SPLITS``.
        count: Number of images.
        size: Height and width in pixels.
        seed: Seed of the data set.
        style: How difficult the images are.
        workers: Processes to draw with, 0 for drawing in this one.
    """
    annotations = root / 'annotations'
    for directory in (root / split, annotations / f'panoptic_{split}', annotations / f'semantic_{split}'):
        directory.mkdir(parents=True)

    images: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    panoptic: list[dict[str, Any]] = []
    write = functools.partial(_write_image, root, split, size, seed, style)
    for index, segments in enumerate(_run(write, count, workers)):
        name = f'{index:06d}'
        images.append({'id': index, 'file_name': f'{name}.jpg', 'height': size[0], 'width': size[1]})
        segments_info = []
        for segment in segments:
            rle = segment.pop('rle')
            segments_info.append(segment)
            if segment['category_id'] <= len(THING_CLASSES):
                # From 1 on: COCO's evaluation takes annotation 0 for "no match".
                instances.append({**segment, 'id': len(instances) + 1, 'image_id': index, 'segmentation': rle})
        panoptic.append({'image_id': index, 'file_name': f'{name}.png', 'segments_info': segments_info})

    categories = [{'id': i, 'name': name, 'isthing': int(name in THING_CLASSES)}
                  for i, name in enumerate(CLASSES, start=1)]
    things = [category for category in categories if category['isthing']]
    for task, entries, known in (('instances', instances, things), ('panoptic', panoptic, categories)):
        info = {'description': f'Shapes, {task}, {split}', 'version': str(GENERATOR_VERSION)}
        dump_json({'info': info, 'images': images, 'annotations': entries, 'categories': known},
                  annotations / f'{task}_{split}.json')


def _run(write: functools.partial, count: int, workers: int) -> Iterator[list[dict[str, Any]]]:
    """Yield ``write(index)`` for each index below ``count``, in order."""
    workers = min(workers, count // _CHUNK)  # starting processes for a few images costs more than it saves
    if workers < 2:
        yield from map(write, range(count))
        return
    # Forked workers start at once; spawned ones would import all of the caller's packages first.
    method = 'fork' if sys.platform == 'linux' else None
    # OpenCV's own threads do not survive a fork.
    with multiprocessing.get_context(method).Pool(workers, cv2.setNumThreads, (0, )) as pool:
        yield from pool.imap(write, range(count), _CHUNK)


def _write_image(root: Path, split: str, size: tuple[int, int], seed: int, style: Style,
                 index: int) -> list[dict[str, Any]]:
    """Draw one image, write it with its label maps, and describe its segments.

    Returns:
        For each segment the fields of ``segments_info``, and its mask as compressed ``rle``.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), index)))
    scene = draw_scene(rng, size, style)
    segment_map = scene.segment_map
    name = f'{index:06d}'
    _imwrite(root / split / f'{name}.jpg', scene.image[..., ::-1], _JPEG)
    # OpenCV writes blue first.
    colours = np.stack([segment_map >> 16, segment_map >> 8 & 255, segment_map & 255], axis=-1).astype(np.uint8)
    _imwrite(root / 'annotations' / f'panoptic_{split}' / f'{name}.png', colours, _PNG)
    _imwrite(root / 'annotations' / f'semantic_{split}' / f'{name}.png',
             (segment_map // SEGMENTS_PER_CLASS).astype(np.uint8), _PNG)
    return _describe_segments(scene)


def _describe_segments(scene: Scene) -> list[dict[str, Any]]:
    """Describe each segment of a scene, in order of the segment numbers; boxes are (x, y, width, height)."""
    segments = np.unique(scene.segment_map)
    segments = segments[segments > 0]
    masks = (scene.segment_map[..., None] == segments).astype(np.uint8)  # (H, W, S)
    rles = mask_utils.encode(np.asfortranarray(masks))
    boxes = mask_utils.toBbox(rles).astype(int).tolist()
    areas = mask_utils.area(rles).tolist()
    return [{
        'id': segment,
        'category_id': segment // SEGMENTS_PER_CLASS,
        'area': area,
        'bbox': box,
        'iscrowd': int(segment in scene.crowds),
        'rle': {'size': rle['size'], 'counts': rle['counts'].decode()},
    } for segment, rle, box, area in zip(segments.tolist(), rles, boxes, areas, strict=True)]


def _imwrite(path: Path, image: np.ndarray, parameters: tuple[int, ...]) -> None:
    # OpenCV reports a full disk by its return value only.
    if not cv2.imwrite(str(path), image, parameters):
        raise OSError(f'could not write {path}')


def dump_json(content: dict[str, Any], path: Path) -> None:
    """Write JSON without the blanks that nobody reads."""
    path.write_text(json.dumps(content, separators=(',', ':')))
