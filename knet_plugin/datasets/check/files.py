"""Reads each file of a check once."""

import os
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from typing import Any

from knet_plugin.datasets.check.report import UNEXPECTED, explain
from knet_plugin.datasets.coco_file import CocoFile, read_coco

__all__ = ['Annotations', 'Files']


class Annotations:
    """A COCO file for instances or panoptic segmentation.

    Attributes:
        path: Where it is.
        file: Its content.
        categories: Those that are not left out.
        images: By id.
        objects: By id of the image, its annotations (instances) or ``segments_info`` (panoptic).
        png: By id of the image, the name of its panoptic PNG.
    """

    def __init__(self, path: str, file: CocoFile) -> None:
        self.path = path
        self.file = file
        self.categories: list[dict] = file.data['categories']
        self.images: dict[Any, dict] = {image['id']: image for image in file.data['images']}
        self.objects: dict[Any, list[dict]] = defaultdict(list)
        self.png: dict[Any, str] = {}
        for annotation in file.data['annotations']:
            image = annotation['image_id']
            self.objects[image] += annotation['segments_info'] if file.panoptic else [annotation]
            if file.panoptic:
                self.png[image] = annotation['file_name']


class Files:
    """Reads annotation files, and looks for many files in few folders, each once."""

    def __init__(self) -> None:
        self._annotations: dict[str, Annotations | str] = {}
        self._folder = cache(_names_in)

    def annotations(self, path: str, backend_args: dict | None = None, classes: Sequence[str] = ()
                    ) -> Annotations | str:
        """The content of a COCO file, or what is wrong with it; see ``read_coco``.

        ``classes`` count for the first call with a path: data sets come before metrics.
        """
        key = os.path.normpath(path)
        if key not in self._annotations:
            self._annotations[key] = _read(path, backend_args, classes)
        return self._annotations[key]

    def missing(self, paths: list[str]) -> list[str]:
        """Those of the paths that are no files. Each folder is listed once, which is faster than asking for files."""
        return [path for path in paths if os.path.basename(path) not in self._folder(os.path.dirname(path))]


def _names_in(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder or '.'))
    except OSError:
        return frozenset()


def _read(path: str, backend_args: dict | None, classes: Sequence[str]) -> Annotations | str:
    if not backend_args and not os.path.isfile(path):
        return 'the annotation file does not exist'
    try:
        return Annotations(path, read_coco(path, backend_args, classes))
    except (OSError, ValueError) as error:
        return str(error).removeprefix(path).lstrip(': ')
    except UNEXPECTED as error:
        return f'not a COCO annotation file: an unexpected value ({explain(error)})'
