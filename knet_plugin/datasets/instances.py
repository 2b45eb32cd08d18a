"""COCO instances as people have them: mmdet's data set on a normalised annotation file."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from logging import WARNING
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmengine.logging import print_log

from knet_plugin.datasets.coco_file import CocoFile, ids_of_classes, read_coco
from knet_plugin.registry import DATASETS

__all__ = ['FILTERED', 'CocoIndex', 'InstanceDataset', 'read_and_report', 'report_dropped', 'require_known_class',
           'without_default_classes']

FILTERED = 'by filter_cfg they have no objects, or are too small'


@DATASETS.register_module()
class InstanceDataset(CocoDataset):
    """mmdet's ``CocoDataset``, for files that lack values or have objects that nothing can draw.

    - Labels follow ``metainfo.classes``; mmdet's follow the annotation file. Without ``metainfo.classes``, the classes
      are the categories of the file.
    - Objects without a usable segmentation are left out. The log counts them, and the images that ``filter_cfg`` drops.

    The arguments are those of ``CocoDataset``.

    Raises:
        ValueError: The file is no COCO file of instances, or has none of the classes.
    """

    _metainfo: dict[str, Any]

    @classmethod
    def _load_metainfo(cls, metainfo: Mapping | None = None) -> dict[str, Any]:
        return without_default_classes(super()._load_metainfo(metainfo), metainfo)

    def load_data_list(self) -> list[dict]:
        """Read the annotation file into one dict for each image."""
        file = read_and_report(self.ann_file, self.backend_args, panoptic=False, classes=self._metainfo.get('classes'))
        names = tuple(category['name'] for category in file.data['categories'])
        self._metainfo.setdefault('classes', names)
        require_known_class(self._metainfo['classes'], names, self.ann_file)
        self.COCOAPI = lambda _: CocoIndex(file.data)  # mmdet calls it with the path
        try:
            return super().load_data_list()
        finally:
            del self.COCOAPI  # a function cannot be sent to the workers of a data loader

    def filter_data(self) -> list[dict]:
        """Filter as mmdet does, and log how many images that drops."""
        return report_dropped(self.ann_file, self.data_list, super().filter_data(), FILTERED)


class CocoIndex(COCO):
    """pycocotools' index of the ``data`` of a ``CocoFile``."""

    def __init__(self, data: dict[str, Any]) -> None:
        super().__init__()
        self.dataset = data
        with contextlib.redirect_stdout(io.StringIO()):  # it prints progress
            self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs

    def get_cat_ids(self, cat_names: Sequence[str] = (), sup_names: Sequence[str] = (),
                    cat_ids: Sequence[int] = ()) -> list[int]:
        """Return the ids of ``cat_names`` in their order, not in that of the file; names that it lacks get new ids."""
        if not cat_names:
            return super().get_cat_ids([], list(sup_names), list(cat_ids))
        ids = ids_of_classes(self.dataset, cat_names)
        self.cats = {category['id']: category for category in self.dataset['categories']}
        return ids


def read_and_report(path: str, backend_args: dict | None, panoptic: bool,
                    classes: Sequence[str] | None = None) -> CocoFile:
    """Read an annotation file, log what was left out, and refuse files of the other kind.

    Args:
        path: The JSON file.
        backend_args: mmengine's file backend.
        panoptic: Whether it must be panoptic; a file without annotations is of both kinds.
        classes: Names of categories that stay.
    """
    file = read_coco(path, backend_args, classes or ())
    if file.data['annotations'] and file.panoptic != panoptic:
        kind, use = ('instances', 'Instance') if panoptic else ('panoptic annotations', 'Panoptic')
        raise ValueError(f'ann_file {path} has {kind}: use knet_plugin.{use}Dataset and knet_plugin.{use}Metric')
    for line in file.lines(path):
        print_log(line, 'current', level=WARNING)
    return file


def without_default_classes(merged: dict[str, Any], metainfo: Mapping | None) -> dict[str, Any]:
    """Remove the classes of COCO, which mmdet puts into ``merged``, unless the config's ``metainfo`` has classes."""
    names = ('classes', 'thing_classes', 'stuff_classes')
    return {key: value for key, value in merged.items() if key not in names or key in (metainfo or ())}


def require_known_class(classes: Sequence[str], names: Sequence[str], path: str) -> None:
    """Raise a ``ValueError`` if none of the classes is among the ``names`` of the file's categories."""
    if not set(classes) & set(names):
        raise ValueError(f'metainfo.classes is {list(classes)}, but the categories of {path} are {list(names)}: '
                         'correct metainfo, or leave it out to use the categories of the file')


def report_dropped(path: str, before: list[dict], after: list[dict], reason: str) -> list[dict]:
    """Return the images ``after`` filtering; log how many are left out."""
    if dropped := len(before) - len(after):
        print_log(f'{path}: {dropped} of {len(before)} images are left out: {reason}', 'current', level=WARNING)
    return after
