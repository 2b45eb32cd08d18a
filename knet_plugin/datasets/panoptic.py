"""COCO panoptic annotations as people have them."""

import os.path as osp
from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.datasets import CocoPanopticDataset

from knet_plugin.datasets.coco_file import ids_of_classes
from knet_plugin.datasets.instances import (
    FILTERED,
    CocoIndex,
    read_and_report,
    report_dropped,
    require_known_class,
    without_default_classes,
)
from knet_plugin.datasets.segmentations import is_box, is_number
from knet_plugin.registry import DATASETS

__all__ = ['PanopticDataset', 'panoptic_metainfo']

_VOID = 255  # in mmdet's semantic maps


@DATASETS.register_module()
class PanopticDataset(CocoPanopticDataset):
    """mmdet's ``CocoPanopticDataset``, for categories, files and ids of any names and order.

    - Things come first in the labels, whatever the order of the categories and of ``metainfo``. Classes that
      ``metainfo`` does not list are those of the file; ``isthing``, where a category lacks it, follows from
      ``metainfo.thing_classes`` or ``stuff_classes``.
    - The PNG of an image is the ``file_name`` of its annotation, below ``data_prefix.seg``. Segment ids may repeat in
      every image.
    - ``filter_cfg=dict(filter_empty_gt=True)`` drops images without segments; images with stuff alone stay.

    The arguments are those of ``CocoPanopticDataset``.

    Raises:
        ValueError: The file is no panoptic COCO file, has none of the classes, or things and stuff are unknown.
    """

    _metainfo: dict[str, Any]

    @classmethod
    def _load_metainfo(cls, metainfo: Mapping | None = None) -> dict[str, Any]:
        return without_default_classes(super()._load_metainfo(metainfo), metainfo)

    def load_data_list(self) -> list[dict]:
        """Read the annotation file into one dict for each image that is annotated, or for each if none is."""
        file = read_and_report(self.ann_file, self.backend_args, panoptic=True, classes=self._metainfo.get('classes'))
        data = file.data
        self._metainfo = panoptic_metainfo(data['categories'], self._metainfo, self.ann_file)
        self.cat_ids = ids_of_classes(data, self.metainfo['classes'])
        self.cat2label = {number: label for label, number in enumerate(self.cat_ids)}
        for category in data['categories']:
            category['isthing'] = int(category['name'] in self._metainfo['thing_classes'])
        self.coco = CocoIndex(dict(categories=data['categories']))  # parse_data_info of mmdet asks it for isthing
        annotations = {annotation['image_id']: annotation for annotation in data['annotations']}
        images = [image for image in data['images'] if image['id'] in annotations or not annotations]
        infos = [self.parse_data_info(dict(raw_img_info=image, raw_ann_info=annotations.get(image['id'])))
                 for image in images]
        del self.coco
        return report_dropped(self.ann_file, data['images'], infos, 'they have no annotation')

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Convert an image and its annotation, None if the file has no annotations."""
        image, annotation = raw_data_info['raw_img_info'], raw_data_info['raw_ann_info']
        segments = [dict(segment, image_id=image['id']) for segment in (annotation or {}).get('segments_info', ())
                    if segment['category_id'] in self.cat2label]
        measured = all(is_box(segment.get('bbox')) for segment in segments)
        for segment in segments:  # mmdet skips segments whose area or box is empty
            if not is_box(segment.get('bbox')):
                segment['bbox'] = [0, 0, image['width'], image['height']]
            if not is_number(segment.get('area')):
                segment['area'] = segment['bbox'][2] * segment['bbox'][3]
        info = super().parse_data_info(dict(raw_img_info=dict(image, img_id=image['id']), raw_ann_info=segments))
        if info['seg_map_path']:
            info['seg_map_path'] = annotation and osp.join(self.data_prefix['seg'], annotation['file_name'])
        if not measured:
            info['boxes_from_masks'] = True  # to LoadPanopticAnnotations
        return info

    def filter_data(self) -> list[dict]:
        """Drop images that ``filter_cfg`` calls too small or, with ``filter_empty_gt``, that have no segments."""
        if self.test_mode or self.filter_cfg is None:
            return self.data_list
        segments = int(self.filter_cfg.get('filter_empty_gt', False))
        size = self.filter_cfg.get('min_size', 0)
        kept = [info for info in self.data_list
                if min(info['width'], info['height']) >= size and len(info['segments_info']) >= segments]
        return report_dropped(self.ann_file, self.data_list, kept, FILTERED)


def panoptic_metainfo(categories: Sequence[Mapping[str, Any]], metainfo: Mapping[str, Any], path: str
                      ) -> dict[str, Any]:
    """Complete ``metainfo`` by the categories of the file ``path``, and sort things before stuff.

    Returns:
        ``metainfo`` with ``classes``, ``thing_classes`` and ``stuff_classes``. ``palette`` is sorted like ``classes``;
        by default, it has the colours of the file.

    Raises:
        ValueError: The file has none of the classes or too many, or things and stuff are unknown or contradict
            ``metainfo``.
    """
    known = {category['name']: category for category in categories}
    things, stuff = metainfo.get('thing_classes'), metainfo.get('stuff_classes')
    listed = metainfo.get('classes') or ([*things, *stuff] if things is not None and stuff is not None else
                                        list(known))
    require_known_class(listed, list(known), path)
    if len(listed) > _VOID:
        raise ValueError(f'{path}: {len(listed)} classes, but label {_VOID} marks pixels without class: list at most '
                         f'{_VOID} in metainfo.classes')
    is_thing = [_is_thing(name, known.get(name), things, stuff, path) for name in listed]
    order = sorted(range(len(listed)), key=lambda i: not is_thing[i])
    names = tuple(listed[i] for i in order)
    number = sum(is_thing)
    complete = dict(metainfo, classes=names, thing_classes=names[:number], stuff_classes=names[number:])
    palette, colours = metainfo.get('palette'), [known.get(name, {}).get('color') for name in listed]
    if all(colours) and palette in (None, CocoPanopticDataset.METAINFO['palette']):
        palette = colours
    if isinstance(palette, list | tuple) and len(palette) == len(listed):
        complete['palette'] = [tuple(palette[i]) for i in order]
    return complete


def _is_thing(name: str, category: Mapping[str, Any] | None, things: Sequence[str] | None, stuff: Sequence[str] | None,
              path: str) -> bool:
    """Whether a class is a thing, by ``isthing`` of its category in the file or, without it, by ``metainfo``."""
    isthing, listed = (category or {}).get('isthing'), None
    if things and name in things or stuff and name in stuff:
        listed = bool(things and name in things)
    elif things is None and stuff is not None:  # the other list has all others
        listed = True
    elif stuff is None and things is not None:
        listed = False
    if isthing is None and listed is None:
        if category is None:
            raise ValueError(f'{path}: metainfo.classes has {name!r}, which is no category of the file')
        raise ValueError(f'{path}: category {name!r} has no "isthing", and neither metainfo.thing_classes nor '
                         'metainfo.stuff_classes lists it: add it to one of them')
    if isthing is not None and listed is not None and bool(isthing) != listed:
        raise ValueError(f'{path}: category {name!r} has isthing={isthing}, but metainfo.'
                         f'{"thing" if listed else "stuff"}_classes lists it: correct one of them')
    return bool(isthing) if isthing is not None else bool(listed)
