"""Reads each file of a check once."""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.fileio import get

from knet_plugin.datasets.check.report import UNEXPECTED, explain
from knet_plugin.datasets.coco_file import read_coco

__all__ = ['Annotations', 'Files', 'read_categories']


class Annotations:
    """A COCO file for instances or panoptic segmentation.

    Attributes:
        path: Where it is.
        categories: As the file has them.
        images: By id.
        objects: By id of the image, its annotations (instances) or ``segments_info`` (panoptic).
        png: By id of the image, the name of its panoptic PNG.
        has_annotations: False in files such as COCO's image_info_test-dev2017.json.
        notes: What our data sets leave out of the file; empty for the file as mmdet's data sets see it.
        skipped: Number of objects that our data sets leave out, by reason.
    """

    def __init__(self, path: str, data: dict, notes: tuple[str, ...] = (), skipped: Counter[str] | None = None) -> None:
        self.path = path
        self.notes = notes
        self.skipped = skipped or Counter()
        self.categories: list[dict] = data['categories']
        self.images: dict[Any, dict] = {image.get('id'): image for image in data['images']}
        self.num_images = len(data['images'])
        self.has_annotations = 'annotations' in data
        self.objects: dict[Any, list[dict]] = defaultdict(list)
        self.png: dict[Any, str] = {}
        for annotation in data.get('annotations') or ():
            image = annotation.get('image_id')
            if 'segments_info' in annotation:
                self.objects[image] += annotation['segments_info']
                self.png[image] = annotation.get('file_name', '')
            else:
                self.objects[image].append(annotation)
        self.panoptic = bool(self.png)

    @property
    def sizes(self) -> dict[Any, tuple[int, int]]:
        """Height and width of each image that has them, by its id."""
        return {number: (image['height'], image['width']) for number, image in self.images.items()
                if 'height' in image and 'width' in image}


class Files:
    """Reads annotation files, and looks for many files in few folders, each once."""

    def __init__(self) -> None:
        self._annotations: dict[tuple, Annotations | str] = {}
        self._folders: dict[str, frozenset[str]] = {}

    def annotations(self, path: str, backend_args: dict | None = None,
                    tolerant_of: Sequence[str] | None = None) -> Annotations | str:
        """The content of a COCO file, or what is wrong with it.

        ``tolerant_of`` are the classes of one of our data sets or metrics, which read files with
        :func:`~knet_plugin.datasets.coco_file.read_coco`. None: as it is.
        """
        key = (os.path.normpath(path), None if tolerant_of is None else tuple(tolerant_of))
        if key not in self._annotations:
            try:
                self._annotations[key] = _read(path, backend_args, tolerant_of)
            except UNEXPECTED as error:
                self._annotations[key] = f'not a COCO annotation file: an unexpected value ({explain(error)})'
        return self._annotations[key]

    def missing(self, paths: list[str]) -> list[str]:
        """Those of the paths that are no files. Each folder is listed once, which is faster than asking for files."""
        return [path for path in paths if os.path.basename(path) not in self._folder(os.path.dirname(path))]

    def _folder(self, folder: str) -> frozenset[str]:
        if folder not in self._folders:
            try:
                self._folders[folder] = frozenset(os.listdir(folder or '.'))
            except OSError:
                self._folders[folder] = frozenset()
        return self._folders[folder]


def _read(path: str, backend_args: dict | None, tolerant_of: Sequence[str] | None) -> Annotations | str:
    if not backend_args and not os.path.isfile(path):
        return 'the annotation file does not exist' + _existing_part(path)
    if tolerant_of is not None:
        try:
            coco = read_coco(path, backend_args, tolerant_of)
        except (OSError, ValueError) as error:
            return str(error).removeprefix(path).lstrip(': ')
        return Annotations(path, coco.data, coco.notes, coco.skipped)
    try:
        data = json.loads(get(path, backend_args=backend_args))
    except (OSError, ValueError) as error:
        return f'no JSON file: {error}'
    missing = [key for key in ('images', 'categories') if not isinstance(data, dict) or
               not isinstance(data.get(key), list) or not all(isinstance(each, dict) for each in data[key])]
    if missing:
        return f'not a COCO annotation file: it needs lists {" and ".join(map(repr, missing))}'
    if not all('name' in category and 'id' in category for category in data['categories']):
        return 'not a COCO annotation file: every entry of \'categories\' needs an id and a name'
    return Annotations(path, data)


def _existing_part(path: str) -> str:
    """Where the path stops to exist, if that is not its last part."""
    missing = Path(os.path.abspath(path))
    while not missing.parent.exists():
        missing = missing.parent
    return '' if missing == Path(os.path.abspath(path)) else f'; there is no folder {missing}'


def read_categories(ann_file: str, backend_args: dict | None = None) -> list[dict[str, Any]]:
    """Read the categories of a COCO annotation file, or raise a ``ValueError`` if it has none."""
    found = Files().annotations(ann_file, backend_args)
    if isinstance(found, str):
        raise ValueError(f'{ann_file}: {found}')
    return found.categories
