"""COCO: JSON files of instances, and what they have in common with panoptic ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from knet_plugin.datasets.coco_file import CocoFile, read_coco
from knet_plugin.datasets.image_files import read_header
from knet_plugin.datasets.names import first_few
from knet_plugin.datasets.prepare.file_names import FileNames
from knet_plugin.datasets.prepare.files import list_files, other_files
from knet_plugin.datasets.prepare.sample import Options, Reading, Region, Sample, Source

__all__ = ['images_of', 'open_coco', 'read_coco_instances']


def read_coco_instances(sources: Sequence[Source], options: Options) -> Reading:
    """Read objects with polygons or RLE."""
    reading = Reading([])
    for source in sources:
        file = open_coco(source, options, reading)
        names = {category['id']: category['name'] for category in file.data['categories']}
        annotations = defaultdict(list)
        for annotation in file.data['annotations']:
            annotations[annotation['image_id']].append(annotation)
        for image, name in images_of(file, source, reading):
            regions = partial(_regions, annotations[image['id']], names, (image['height'], image['width']))
            reading.samples.append(Sample(source.images / name, str(name), source.split, regions))
    return reading


def _regions(annotations: Sequence[dict], names: Mapping[Any, str], size: tuple[int, int]) -> list[Region]:
    from pycocotools import mask as mask_utils

    regions = []
    for annotation in annotations:
        rle = annotation['segmentation']
        if isinstance(rle, list):
            rle = mask_utils.merge(mask_utils.frPyObjects(rle, *size))
        elif isinstance(rle['counts'], list):
            rle = mask_utils.frPyObjects(rle, *size)
        regions.append(Region(names[annotation['category_id']], rle, bool(annotation['iscrowd'])))
    return regions


def open_coco(source: Source, options: Options, reading: Reading) -> CocoFile:
    """Read the file of a source; its categories and faults go to ``reading``."""
    path = source.annotations
    if not path.is_file():
        files = sorted(file.name for file in path.glob('*.json'))
        raise ValueError(f'{path}: give the COCO file itself, not its folder, which has {first_few(files, 10)}')
    images = FileNames(list_files(source.images))

    def size_of(name: str) -> tuple[int, int] | None:
        image = images.find(name)
        return read_header(source.images / image).size if image else None

    file = read_coco(str(path), classes=[*options.classes, *options.stuff], size_of=size_of)
    if not file.data['annotations']:
        raise ValueError(f'{path}: "annotations" has nothing that can be drawn; {first_few(file.lines(str(path)))}')
    reading.notes += file.lines(str(path))
    reading.names += [each['name'] for each in file.data['categories'] if each['name'] not in reading.names]
    return file


def images_of(file: CocoFile, source: Source, reading: Reading) -> Iterator[tuple[dict, PurePosixPath]]:
    """Yield the records of the images that exist, and their paths; note those that lack a file or a record."""
    files = FileNames(list_files(source.images))
    missing: list[str] = []
    found: set[PurePosixPath] = set()
    for image in file.data['images']:
        name = files.find(str(image['file_name']))
        if name is None:
            missing.append(image['file_name'])
        elif name in found:
            raise ValueError(f'{source.annotations}: two images have the file_name {image["file_name"]!r}')
        else:
            found.add(name)
            yield image, name
    if not found:
        raise ValueError(f'{source.annotations}: none of its images is in {source.images}: {first_few(missing)}'
                         f'{other_files(source.images)}')
    reading.note(missing, f'images of {source.annotations} are not in {source.images} and are left out'
                 f'{other_files(source.images)}')
    reading.note([name for name in files.paths if name not in found],
                 f'images in {source.images} are not in {source.annotations.name} and are left out')
