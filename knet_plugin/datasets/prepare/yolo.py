"""YOLO segmentation: a text file for each image, with a class number and a polygon in each line.

The package supervision reads this format, too, but decodes the masks of all images at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from knet_plugin.datasets.image_files import read_header
from knet_plugin.datasets.names import first_few
from knet_plugin.datasets.prepare.file_names import FileNames
from knet_plugin.datasets.prepare.files import list_files, other_files
from knet_plugin.datasets.prepare.polygons import encode_polygon
from knet_plugin.datasets.prepare.sample import Options, Reading, Region, Sample, Source

__all__ = ['read_yolo']

_NAME_FILES = ('classes.txt', 'obj.names')


def read_yolo(sources: Sequence[Source], options: Options) -> Reading:
    """Read polygons whose coordinates are shares of the image's width and height.

    Class names are those of a YAML file with ``names``, or of ``classes.txt``, near the labels; otherwise
    ``options.classes``. An image without text file has no object, as in training YOLO.
    """
    reading = Reading(_names(sources[0]) or list(options.classes))
    if not reading.names:
        raise ValueError(f'--classes: there is no data.yaml or classes.txt near {sources[0].annotations}; name the '
                         'classes 0, 1, 2, ...')
    for source in sources:
        images = list_files(source.images)
        stems = FileNames((name.with_suffix('') for name in images), with_folders=True)
        files = [label for label in list_files(source.annotations, ('.txt',)) if label.name not in _NAME_FILES]
        labels: dict[PurePosixPath | None, PurePosixPath] = {}  # of images without suffix
        for label in files:
            labels.setdefault(stems.find(str(label.with_suffix(''))), label)
        labels.pop(None, None)
        alone = [name for name in images if name.with_suffix('') not in labels]
        if len(alone) == len(images):
            raise ValueError(f'{source.annotations}: no text file has the name of an image in {source.images}'
                             f'{other_files(source.images)}')
        reading.note(alone, 'images have no text file, so no object')
        reading.note(sorted(set(files).difference(labels.values())),
                     f'text files have no image and are left out{other_files(source.images)}')
        for name in images:
            file = labels.get(name.with_suffix(''))
            regions = partial(_regions, source.annotations / file if file else None, source.images / name, reading)
            reading.samples.append(Sample(source.images / name, str(name), source.split, regions))
    return reading


def _names(source: Source) -> list[str]:
    """Read the class names from a file in the folder of labels, of images, or above them."""
    folders = [source.annotations, source.images, *source.annotations.parents[:3]]
    for folder in folders:
        for path in sorted([*folder.glob('*.yaml'), *folder.glob('*.yml')]):
            names = _names_of(path)
            if names:
                return names
        for path in (folder / name for name in _NAME_FILES):
            if path.is_file():
                return [line.strip() for line in path.read_text(encoding='utf-8-sig').splitlines() if line.strip()]
    return []


def _names_of(path: Path) -> list[str]:
    try:
        fields: Any = yaml.safe_load(path.read_text(encoding='utf-8-sig'))
    except (yaml.YAMLError, UnicodeDecodeError):
        return []
    names = fields.get('names') if isinstance(fields, dict) else None
    if isinstance(names, dict):
        try:
            numbered = {int(number): name for number, name in names.items()}
        except ValueError:
            raise ValueError(f'{path}: names must be numbered 0, 1, 2, ..., got {list(names)[:5]}') from None
        names = [numbered.get(number, f'class {number}') for number in range(max(numbered, default=-1) + 1)]
    return [str(name) for name in names] if isinstance(names, list) else []


def _regions(label: Path | None, image: Path, reading: Reading) -> list[Region]:
    if label is None:
        return []
    size = read_header(image).size
    regions = []
    for number, line in enumerate(label.read_text(encoding='utf-8-sig').splitlines(), 1):
        if line.strip():
            place = f'{label}, line {number}'
            index, polygon = _numbers(line, place)
            if index >= len(reading.names):
                raise ValueError(f'{place}: class {index}, but only {len(reading.names)} have names: '
                                 f'{first_few(reading.names)}')
            if rle := _encode(polygon, size, reading.counted):
                regions.append(Region(reading.names[index], rle))
    return regions


def _numbers(line: str, place: str) -> tuple[int, list[float]]:
    """Return the class and the coordinates of a line."""
    try:
        first, *others = map(float, line.split())
    except ValueError:
        first, others = -1.0, []
    if first < 0 or not first.is_integer() or not others:
        raise ValueError(f'{place}: needs a class number and coordinates x y x y ..., got {line[:60]!r}')
    return int(first), others


def _encode(shares: list[float], size: tuple[int, int], counted: Counter[str]) -> dict[str, Any] | None:
    """Return the RLE of a polygon whose coordinates are shares of (height, width)."""
    rle, problem = None, None
    if len(shares) in (4, 5):
        problem = 'a box instead of a polygon (labels of YOLO detection)'
    elif len(shares) % 2:
        problem = 'a line with an odd number of coordinates'
    else:
        rle, problem = encode_polygon(np.reshape(shares, (-1, 2)) * size[::-1], size)
    if problem:
        counted[f'left out: {problem}'] += 1
    return rle
