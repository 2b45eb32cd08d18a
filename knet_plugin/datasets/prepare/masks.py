"""Masks of objects as images: instance masks, one file for each object, and binary masks.

Masks of several classes are in one folder for each class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from knet_plugin.datasets.names import JPEG_SUFFIXES, first_few
from knet_plugin.datasets.prepare.files import list_files, other_files, read_map
from knet_plugin.datasets.prepare.pairs import Pairs, pair
from knet_plugin.datasets.prepare.sample import Options, Reading, Region, Sample, Source, encode_map

__all__ = ['class_folders', 'read_binary_masks', 'read_instance_masks', 'read_object_masks']

_MOST_OBJECTS = 5000  # in one mask; more is a photo or a compressed mask
_NUM_LOOKED_AT = 20  # masks, to see whether they are binary
_IGNORED = 255
_Decoder = Callable[[Path, str, Counter], list[Region]]


def read_instance_masks(sources: Sequence[Source], options: Options) -> Reading:
    """Read masks with 0 = background and another value, or colour, for each object.

    255 beside other values is ignored, unless 254 is there too.
    """
    return _read(sources, options, _instances)


def read_object_masks(sources: Sequence[Source], options: Options) -> Reading:
    """Read masks that show one object each."""
    return _read(sources, options, _object)


def read_binary_masks(sources: Sequence[Source], options: Options) -> Reading:
    """Read masks in which every connected region is an object."""
    return _read(sources, options, _components)


def class_folders(source: Source, classes: Sequence[str]) -> list[str]:
    """Return the names of the folders that hold the masks of one class each, or nothing if there are none.

    They are folders of masks that have the name of no folder of images and no image; with ``classes``, only those.
    """
    folders = sorted(path.name for path in source.annotations.iterdir() if path.is_dir() and path.name[0] not in '._')
    images = {part for name in list_files(source.images) for part in (name.stem, *name.parts[:-1])}
    if images.intersection(folders):
        return []
    return [name for name in classes if name in folders] if classes else folders


def _read(sources: Sequence[Source], options: Options, decode: _Decoder) -> Reading:
    folders = list(dict.fromkeys(name for source in sources for name in class_folders(source, options.classes)))
    names = list(options.classes) or folders
    if missing := [name for name in names if name not in folders] if folders else []:
        raise ValueError(f'--classes {first_few(missing)}: {sources[0].annotations} has no folder of that name, but of '
                         f'{first_few(folders)}')
    if len(names) != 1 and not folders:
        raise ValueError(f'--classes: masks in {sources[0].annotations} have one class, got '
                         f'{first_few(names) if names else "none"}; for several classes, put the masks of each into a '
                         'folder with its name')
    reading = Reading(names)
    for source in sources:
        files = _files_of_images(source, folders, reading)
        if decode is _instances:
            reading.notes += _binary_note([file for masks in files.values() for file, _ in masks][:_NUM_LOOKED_AT])
        reading.samples += [Sample(source.images / image, str(image), source.split,
                                   partial(_regions, masks, decode, reading.counted)) for image, masks in files.items()]
    if not reading.samples:
        raise ValueError(f'{sources[0].annotations}: no mask has the name of an image in {sources[0].images}'
                         f'{other_files(sources[0].images)}')
    return reading


def _files_of_images(source: Source, folders: Sequence[str],
                     reading: Reading) -> dict[PurePosixPath, list[tuple[Path, str]]]:
    """Return the masks of each image, and the class of each; note what has no partner."""
    images = list_files(source.images)
    if source.images == source.annotations:
        raise ValueError(f'{source.images}: images and masks need a folder each')
    pairs = Pairs()
    files: dict[PurePosixPath, list[tuple[Path, str]]] = {}
    for name in folders or ['']:
        folder = source.annotations / name
        found = pair(images, list_files(folder))
        for image, masks in found.masks.items():
            files.setdefault(image, []).extend((folder / mask, name or reading.names[0]) for mask in masks)
        pairs.masks.update(found.masks)
        pairs.masks_alone += [name / mask for mask in found.masks_alone]
    pairs.images_alone = [image for image in images if image not in files]
    pairs.note(reading, other_files(source.images))
    return files


def _binary_note(files: Sequence[Path]) -> list[str]:
    """Return a line for the user if all masks have one value, but some have several connected regions."""
    several = 0
    for file in files:
        try:
            values = read_map(file)[0]
        except ValueError:  # to be reported with all others
            continue
        if np.unique(values[values > 0]).size > 1:
            return []
        several += cv2.connectedComponents((values > 0).astype(np.uint8))[0] > 2  # with the background
    return [f'{several} of {len(files)} masks have separate regions of one value, and each mask is read as one object; '
            'if the regions are objects, add --format binary-masks'] if several else []


def _regions(files: Sequence[tuple[Path, str]], decode: _Decoder, counted: Counter[str]) -> list[Region]:
    return [region for file, name in files for region in decode(file, name, counted)]


def _instances(file: Path, name: str, counted: Counter[str]) -> list[Region]:
    values, coloured = read_map(file)
    encoded = encode_map(values)
    encoded.pop(0, None)
    if len(encoded) > _MOST_OBJECTS:
        raise ValueError(f'{file}: {len(encoded)} different values are too many for objects; instance masks have 0 for '
                         'the background and 1, 2, 3, ... for the objects')
    ignored = not coloured and len(encoded) > 1 and _IGNORED in encoded and _IGNORED - 1 not in encoded
    if ignored:
        counted['value 255 beside other values is ignored'] += 1
    return [Region(None if ignored and value == _IGNORED else name, rle) for value, rle in encoded.items()]


def _object(file: Path, name: str, counted: Counter[str]) -> list[Region]:
    mask = _foreground(file)
    return [Region(name, encode_map(mask)[1])] if mask.any() else []


def _components(file: Path, name: str, counted: Counter[str]) -> list[Region]:
    _, components = cv2.connectedComponents(_foreground(file))
    return [Region(name, rle) for value, rle in encode_map(components).items() if value]


def _foreground(file: Path) -> np.ndarray:
    """Return the (H, W) uint8 mask of the brighter half of the values, because edges may be smoothed."""
    if file.suffix.lower() in JPEG_SUFFIXES:
        grey = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
        if grey is None:
            raise ValueError(f'{file}: the mask cannot be read')
        return (grey > 127).astype(np.uint8)
    values, coloured = read_map(file)
    threshold = 0 if coloured else values.max(initial=0) // 2
    return (values > threshold).astype(np.uint8)
