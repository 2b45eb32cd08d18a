"""labelme: a JSON file for each image, with shapes in pixels."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from knet_plugin.datasets.image_files import read_header
from knet_plugin.datasets.prepare.file_names import FileNames
from knet_plugin.datasets.prepare.files import list_files, other_files
from knet_plugin.datasets.prepare.polygons import encode_polygon
from knet_plugin.datasets.prepare.sample import Options, Reading, Region, Sample, Source, encode_map

__all__ = ['read_labelme']

_CORNERS_OF_CIRCLE = 72
_IGNORED = '__ignore__'  # labelme's own name


def read_labelme(sources: Sequence[Source], options: Options) -> Reading:
    """Read polygons, rectangles, circles and masks. Shapes of one label and ``group_id`` are one object.

    Classes are all labels, in the order of the alphabet.
    """
    reading = Reading([])
    names: set[str] = set()
    for source in sources:
        files = FileNames(list_files(source.images))
        known = {name.with_suffix(''): name for name in files.paths}
        stems = FileNames(known, with_folders=True)
        alone: list[PurePosixPath] = []
        used: dict[PurePosixPath, Path] = {}
        for file in list_files(source.annotations, ('.json',)):
            path = source.annotations / file
            data = _load(path)
            stem = stems.find(str(file.with_suffix('')))
            image = known[stem] if stem else files.find(str(data.get('imagePath') or ''))
            if image is None:
                alone.append(file)
                continue
            if (other := used.setdefault(image, path)) != path:
                raise ValueError(f'{other} and {path} are both for the image {image}')
            names.update(str(shape['label']) for shape in data['shapes'])
            reading.samples.append(Sample(source.images / image, str(image), source.split,
                                          partial(_regions, path, source.images / image, reading)))
        if not used:
            raise ValueError(f'{source.annotations}: no labelme file has the name of an image in {source.images}'
                             f'{other_files(source.images)}')
        reading.note(alone, f'labelme files have no image and are left out{other_files(source.images)}')
        reading.note([name for name in files.paths if name not in used],
                     'images have no labelme file and are left out')
    reading.names = sorted(names - {_IGNORED})
    return reading


def _load(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f'{path}: no JSON ({error})') from None
    shapes = data.get('shapes') if isinstance(data, dict) else None
    if not isinstance(shapes, list) or not all(isinstance(each, dict) and 'label' in each for each in shapes):
        raise ValueError(f'{path}: no labelme file, which has a list "shapes" with a "label" each')
    return data


def _regions(path: Path, image: Path, reading: Reading) -> list[Region]:
    from pycocotools import mask as mask_utils

    data = _load(path)
    size: tuple[Any, Any] = data.get('imageHeight'), data.get('imageWidth')
    if size == (None, None):
        size = read_header(image).size
    if not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError(f'{path}: imageHeight and imageWidth are {size}')
    parts: dict[Any, list[dict]] = {}
    for number, shape in enumerate(data['shapes']):
        try:
            rle = _encode(shape, size, reading)
        except (TypeError, ValueError, KeyError, binascii.Error, UnidentifiedImageError) as error:
            raise ValueError(f'{path}: shape {number}, {shape["label"]!r}: {error}') from None
        if rle:
            group = shape.get('group_id')
            parts.setdefault((str(shape['label']), number if group is None else f'group {group}'), []).append(rle)
    return [Region(None if name == _IGNORED else name, mask_utils.merge(rles)) for (name, _), rles in parts.items()]


def _encode(shape: dict[str, Any], size: tuple[int, int], reading: Reading) -> dict[str, Any] | None:
    """Return the RLE of a shape in an image of (height, width)."""
    kind = shape.get('shape_type') or 'polygon'
    points = np.array(shape.get('points') or [], np.float64).reshape(-1, 2)
    if kind == 'mask':
        return encode_map(_paste(shape, points, size)).get(1)
    if kind in ('rectangle', 'circle') and len(points) == 2:
        points = _outline(kind, *points)
    elif kind != 'polygon':
        reading.counted[f'left out: a shape of type {kind!r}, which has no area'] += 1
        return None
    rle, problem = encode_polygon(points, size)
    if problem:
        reading.counted[f'left out: {problem}'] += 1
    return rle


def _outline(kind: str, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the corners of a rectangle from two opposite ones, or of a circle from its centre and a point on it."""
    if kind == 'rectangle':
        return np.array([first, (second[0], first[1]), second, (first[0], second[1])])
    angles = np.linspace(0, 2 * np.pi, _CORNERS_OF_CIRCLE, endpoint=False)
    return first + np.linalg.norm(second - first) * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _paste(shape: dict[str, Any], points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the (H, W) mask of a shape of type 'mask', which has a PNG of its box."""
    with Image.open(io.BytesIO(base64.b64decode(shape['mask']))) as image:
        part = np.asarray(image) > 0
    mask = np.zeros(size, np.uint8)
    left, top = np.round(points[0]).astype(int)
    part = part[max(0, -top):, max(0, -left):]
    target = mask[max(0, top):, max(0, left):][:part.shape[0], :part.shape[1]]
    target[:] = part[:target.shape[0], :target.shape[1]]
    return mask
