"""The formats of annotations: their readers, and which one a folder or file has."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from knet_plugin.datasets.prepare.coco import read_coco_instances
from knet_plugin.datasets.prepare.coco_panoptic import read_coco_panoptic
from knet_plugin.datasets.prepare.files import list_files
from knet_plugin.datasets.prepare.label_maps import read_label_maps
from knet_plugin.datasets.prepare.labelme import read_labelme
from knet_plugin.datasets.prepare.masks import class_folders, read_binary_masks, read_instance_masks, read_object_masks
from knet_plugin.datasets.prepare.pairs import pair
from knet_plugin.datasets.prepare.sample import Options, Reading, Source
from knet_plugin.datasets.prepare.yolo import read_yolo

__all__ = ['FORMATS', 'detect_format']

# Name: what it is, and its reader.
FORMATS: dict[str, tuple[str, Callable[[Sequence[Source], Options], Reading]]] = {
    'instance-masks': ('masks with 0 = background and another value for each object', read_instance_masks),
    'object-masks': ('one mask for each object', read_object_masks),
    'binary-masks': ('masks in which each connected region is an object', read_binary_masks),
    'label-maps': ('label maps, whose values are classes', read_label_maps),
    'coco': ('COCO instances', read_coco_instances),
    'coco-panoptic': ('COCO panoptic', read_coco_panoptic),
    'yolo': ('YOLO segmentation', read_yolo),
    'labelme': ('labelme', read_labelme),
}


def detect_format(source: Source, options: Options) -> str:
    """Return the key of ``FORMATS`` that the annotations of a source have.

    Masks of one class hold instances, and those of several classes are label maps, unless each class has its folder.

    Raises:
        ValueError: They have none.
    """
    path = source.annotations
    if path.is_file():
        if path.suffix.lower() != '.json':
            raise ValueError(f'{path}: annotations must be a JSON file or a folder')
        return _of_json(path)
    if files := list_files(path, ('.json',)):
        return _of_json(path / files[0])
    if masks := list_files(path):
        if path == source.images:
            raise ValueError(f'{path}: there are only images; give the folder or file of the annotations, too')
        if not (folders := class_folders(source, [name.partition('=')[0] for name in options.classes])):
            if len(options.classes) > 1 or any('=' in name for name in options.classes):
                return 'label-maps'
            return 'object-masks' if pair(list_files(source.images), masks).several else 'instance-masks'
        several = any(pair(list_files(source.images), list_files(path / name)).several for name in folders)
        return 'object-masks' if several else 'instance-masks'
    if list_files(path, ('.txt',)):
        return 'yolo'
    raise ValueError(f'{path}: there are no annotations: no masks, JSON files or YOLO text files')


def _of_json(path: Path) -> str:
    try:
        data = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f'{path}: no JSON ({error})') from None
    if isinstance(data, dict) and 'shapes' in data:
        return 'labelme'
    annotations = data.get('annotations') if isinstance(data, dict) else None
    if not isinstance(annotations, list):
        raise ValueError(f'{path}: neither COCO (a list "annotations") nor labelme (a list "shapes")')
    panoptic = any(isinstance(each, dict) and 'segments_info' in each for each in annotations)
    return 'coco-panoptic' if panoptic else 'coco'
