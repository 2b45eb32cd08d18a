"""COCO annotation files as people have them: read once, completed, and rid of objects that nothing can draw."""

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from knet_plugin.datasets.coco_records import load
from knet_plugin.datasets.segmentations import complete, is_box, is_number, truth, usable

__all__ = ['FOREIGN', 'CocoFile', 'ids_of_classes', 'read_coco']

# Reasons to leave out an object that mmdet leaves out, too.
FOREIGN = ('an image_id of no image', 'a category_id of no category', 'an area of 0')


@dataclass(frozen=True)
class CocoFile:
    """A normalised annotation file.

    Attributes:
        data: What pycocotools expects. Every category name occurs once. Every object has ``id``, ``iscrowd``, ``area``,
            ``bbox`` and a ``segmentation`` that fits its image. Every annotation of a panoptic file has ``file_name``
            and ``segments_info``, in which ``bbox`` and ``area`` may be missing.
        skipped: Number of objects that were left out, by reason.
        notes: Lines on records that were merged or left out.
        needed: What was put right, but mmdet's own data sets and metrics do not take, and how often.
    """

    data: dict[str, Any]
    skipped: Counter[str]
    notes: tuple[str, ...]
    needed: Counter[str]

    @property
    def panoptic(self) -> bool:
        """Whether the annotations are panoptic: one PNG for each image."""
        return any('segments_info' in annotation for annotation in self.data['annotations'])

    def lines(self, path: str) -> list[str]:
        """What to tell the user about the file of that ``path``; nothing if nothing was left out."""
        reasons = ', '.join(f'{count} with {reason}' for reason, count in self.skipped.most_common())
        objects = [f'{self.skipped.total()} objects are left out: {reasons}'] if self.skipped else []
        return [f'{path}: {line}' for line in (*self.notes, *objects)]


def read_coco(path: str, backend_args: dict | None = None, classes: Collection[str] = (),
              size_of: Callable[[str], tuple[int, int] | None] | None = None) -> CocoFile:
    """Read a COCO file of instances, panoptic annotations, or images alone.

    Args:
        path: The JSON file.
        backend_args: mmengine's file backend.
        classes: Categories of these names stay, although they may look like a root that groups the others.
        size_of: Gives the (height, width) of a ``file_name`` whose record has none, or None, which drops the image.

    Raises:
        ValueError: This is no COCO file, or two images or categories cannot be told apart.
    """
    data, notes = load(path, backend_args, size_of)
    needed: Counter[str] = Counter()
    panoptic = any('segments_info' in annotation for annotation in data['annotations'])
    skipped: Counter[str] = Counter()
    if panoptic:
        for annotation in data['annotations']:
            annotation['segments_info'] = list(annotation.get('segments_info') or ())
        objects = [segment for annotation in data['annotations'] for segment in annotation['segments_info']]
    else:
        objects = data['annotations']
    needed['objects without "iscrowd"'] = sum(each.get('iscrowd') is None for each in objects)
    needed['objects without a usable "area"'] = sum(not is_number(each.get('area')) for each in objects)
    needed['objects without a usable "bbox"'] = sum(not is_box(each.get('bbox')) for each in objects)
    names = [category['name'] for category in data['categories']]
    notes += _drop_categories(data, {each.get('category_id') for each in objects}, classes, path)
    needed['categories with the name of another'] = len(names) - len(set(map(str, names)))
    (_clean_panoptic if panoptic else _clean_instances)(data, skipped)
    return CocoFile(data, skipped, tuple(notes), +needed)


def ids_of_classes(data: dict[str, Any], classes: Sequence[str]) -> list[int]:
    """Return the category id of each class; a class that ``data`` lacks becomes a category of it."""
    ids = {category['name']: category['id'] for category in data['categories']}
    free = itertools.count(max((i for i in ids.values() if isinstance(i, int)), default=0) + 1)
    for name in classes:
        if name not in ids:
            ids[name] = next(free)
            data['categories'].append(dict(id=ids[name], name=name))
    return [ids[name] for name in classes]


def _drop_categories(data: dict[str, Any], used: set, classes: Collection[str], path: str) -> list[str]:
    """Leave out categories without objects that have another's name, or that only group all others."""
    categories, notes = data['categories'], []
    for category in categories:
        category['name'] = str(category['name'])
        if (isthing := category.pop('isthing', None)) is not None:
            category['isthing'] = truth(isthing)
    kept: dict[str, dict] = {}
    for category in sorted(categories, key=lambda category: category['id'] not in used):
        first = kept.setdefault(category['name'], category)
        if first is not category:
            if category['id'] in used:
                raise ValueError(f'{path}: the categories {first["id"]} and {category["id"]} have one name, '
                                 f'{category["name"]!r}: rename one of them')
            notes.append(f'category {category["id"]} is left out: no object has it, and category {first["id"]} has the '
                         f'same name {category["name"]!r}')
    for category in list(kept.values()):
        others = [other for other in kept.values() if other is not category]
        if (others and category['id'] not in used and category['name'] not in classes
                and all(other.get('supercategory') == category['name'] for other in others)):
            notes.append(f'category {category["name"]!r} is left out: no object has it, and it is the supercategory of '
                         'all others')
            del kept[category['name']]
    data['categories'] = [category for category in categories if kept.get(category['name']) is category]
    return notes


def _clean_instances(data: dict[str, Any], skipped: Counter[str]) -> None:
    """Drop objects that nothing can draw, and complete the others."""
    sizes = {image['id']: (image['height'], image['width']) for image in data['images']}
    categories = {category['id'] for category in data['categories']}
    kept = []
    for annotation in data['annotations']:
        if problem := _reference_problem(annotation, sizes, categories):
            skipped[problem] += 1
            continue
        size = sizes[annotation['image_id']]
        annotation['segmentation'], problem = usable(annotation.get('segmentation'), size)
        if problem and is_number(annotation.get('area')) and annotation['area'] <= 0:
            problem = FOREIGN[2]
        elif not problem and not complete(annotation, size):
            problem = 'a segmentation without a pixel'
        if problem:
            skipped[problem] += 1
        else:
            kept.append(annotation)
    data['annotations'] = kept
    # pycocotools takes an id of 0 for "no match", and one object for each id.
    seen: set[int] = set()
    renumbered = []
    for annotation in kept:
        number = annotation.get('id')
        if type(number) is int and number > 0 and number not in seen:
            seen.add(number)
        else:
            renumbered.append(annotation)
    for number, annotation in enumerate(renumbered, start=max(seen, default=0) + 1):
        annotation['id'] = number


def _clean_panoptic(data: dict[str, Any], skipped: Counter[str]) -> None:
    """Drop segments that no pixel can have, and complete the annotations."""
    names = {image['id']: image['file_name'] for image in data['images']}
    categories = {category['id'] for category in data['categories']}
    annotations: dict[Any, dict] = {}
    for annotation in data['annotations']:
        if annotation.get('image_id') not in names or annotation['image_id'] in annotations:
            skipped['an image_id of no image, or of one that has an annotation'] += len(annotation['segments_info'])
            continue
        annotations[annotation['image_id']] = annotation
        if not annotation.get('file_name'):
            annotation['file_name'] = str(PurePath(names[annotation['image_id']]).with_suffix('.png'))
        segments: dict[int, dict] = {}
        for segment in annotation['segments_info']:
            number = segment.get('id')
            if segment.get('category_id') not in categories:
                skipped['a category_id of no category'] += 1
            elif not isinstance(number, int) or number <= 0 or number in segments:
                skipped['an id that is missing, 0 (unlabelled) or repeated in its image'] += 1
            else:
                segments[number] = segment
                segment['iscrowd'] = truth(segment.get('iscrowd'))
        annotation['segments_info'] = list(segments.values())
    data['annotations'] = list(annotations.values())


def _reference_problem(annotation: dict, images: Collection, categories: Collection) -> str | None:
    if annotation.get('image_id') not in images:
        return FOREIGN[0]
    return None if annotation.get('category_id') in categories else FOREIGN[1]
