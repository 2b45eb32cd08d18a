"""Rules on classes: of the model, the data set and the annotation file."""

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from mmengine.config import Config

from knet_plugin.datasets.check.files import Annotations, first_few
from knet_plugin.datasets.check.report import Report
from knet_plugin.datasets.check.sources import Source

__all__ = ['check_categories', 'check_model_classes', 'model_of', 'semantic_heads']


def model_of(cfg: Config) -> Mapping:
    """The model's config, without a wrapper for test-time augmentation."""
    model = cfg.get('model') or {}
    while isinstance(model, Mapping) and isinstance(model.get('module'), Mapping):
        model = model['module']
    return model if isinstance(model, Mapping) else {}


def semantic_heads(model: Mapping) -> dict[str, Mapping]:
    """Decode and auxiliary heads of a segmentor, by their place in the config."""
    heads: dict[str, Mapping] = {}
    for name in ('decode_head', 'auxiliary_head'):
        part = model.get(name)
        for i, head in enumerate(part if isinstance(part, list | tuple) else [part]):
            if isinstance(head, Mapping):
                where = f'model.{name}' + (f'[{i}]' if isinstance(part, list | tuple) else '')
                inner = head.get('kernel_generate_head')
                heads[f'{where}.kernel_generate_head' if inner else where] = inner or head
    return heads


def _detection_heads(model: Mapping) -> dict[str, Mapping]:
    """Heads of mmdet's detectors that classify objects."""
    roi_head = model.get('roi_head') or {}
    heads = {'model.bbox_head': model.get('bbox_head'), 'model.mask_head': model.get('mask_head')}
    for name in ('bbox_head', 'mask_head'):
        part = roi_head.get(name) if isinstance(roi_head, Mapping) else None
        for i, head in enumerate(part if isinstance(part, list | tuple) else [part]):
            heads[f'model.roi_head.{name}' + (f'[{i}]' if isinstance(part, list | tuple) else '')] = head
    return {where: head for where, head in heads.items() if isinstance(head, Mapping) and 'num_classes' in head}


def check_model_classes(model: Mapping, source: Source, where: str, report: Report) -> None:
    """Compare the numbers of classes of the model with those of a data set, called ``where``."""
    metainfo = source.dataset.metainfo
    if source.kind == 'semantic':
        heads = semantic_heads(model)
    else:
        heads = _detection_heads(model)
        if isinstance(head := model.get('panoptic_head'), Mapping):
            _check_panoptic_head(head, metainfo, where, report)
    for name, head in heads.items():
        number = head.get('num_classes')
        if number is not None and number != len(source.classes):
            report.error(f'{name}.num_classes={number}, but metainfo.classes of the data set has '
                         f'{len(source.classes)} names: {first_few(source.classes, 8)}; change one of them', where)


def _check_panoptic_head(head: Mapping, metainfo: Mapping[str, Any], where: str, report: Report) -> None:
    """Compare ``num_things_classes`` and ``num_stuff_classes``; all things come before all stuff."""
    if 'classes' not in metainfo:
        return
    defaults = (80, 0) if str(head.get('type')).endswith('KernelIterHead') else (None, None)
    things, stuff = (head.get(name, default) for name, default in
                     zip(('num_things_classes', 'num_stuff_classes'), defaults, strict=True))
    if things is None or stuff is None:
        return
    for name, number in dict(thing_classes=things, stuff_classes=stuff, classes=things + stuff).items():
        if name in metainfo and len(metainfo[name]) != number:
            report.error(f'the model has num_things_classes={things} and num_stuff_classes={stuff}, but '
                         f'metainfo.{name} of the data set has {len(metainfo[name])} names '
                         f'({first_few(list(metainfo[name]), 8)}); change model.panoptic_head and '
                         'model.panoptic_fusion_head, or metainfo', where)
    wrong = [name for name in metainfo['classes'][:things] if name not in metainfo.get('thing_classes', [name])]
    if wrong:
        report.error(f'metainfo.classes must list the {things} thing_classes first, but {wrong[0]!r} is none of them',
                     where)


def check_categories(source: Source, file: Annotations, report: Report) -> None:
    """Compare ``metainfo`` of a data set with the categories of its annotation file."""
    classes, names = source.classes, [category['name'] for category in file.categories]
    counts = Counter(each.get('category_id') for objects in file.objects.values() for each in objects)
    default = list(getattr(type(source.dataset), 'METAINFO', {}).get('classes') or ()) == classes
    if not set(classes) & set(names) or default and not set(classes) <= set(names):
        why = ('metainfo is missing or has no "classes", so the data set takes '
               f'the {len(classes)} classes of {type(source.dataset).__name__}' if default
               else 'none of the names is the same')
        report.error(f'metainfo.classes {first_few(classes)} and the categories {first_few(names, 8)} do not fit: {why}; '
                     f'write metainfo=dict(classes={tuple(names[:20])!r})', file.path)
        return
    others = {each['id']: each['name'] for each in file.categories if each['name'] not in classes}
    if number := sum(counts[each] for each in others):
        report.warn(f'{number} objects are ignored, because their categories are not in metainfo.classes: '
                    f'{first_few(list(others.values()), 8)}', file.path, number)
    if source.ours:
        for name in [name for name in classes if name not in names]:
            report.warn(f'metainfo.classes has {name!r}, which is no category of the file'
                        + _nearest(name, list(others.values())), file.path)
    else:
        check_order(classes, file.categories, file.path, report)
        unknown = sum(number for each, number in counts.items()
                      if each not in {category['id'] for category in file.categories})
        if unknown:
            (report.error if source.kind == 'panoptic' else report.warn)(
                f'{unknown} objects have a category_id that is in no entry of "categories"', file.path, unknown)
    if source.kind == 'panoptic':
        _check_isthing(source, file, report)


def check_order(classes: Sequence[str], categories: Sequence[Mapping[str, Any]], path: str, report: Report) -> None:
    """mmdet assigns labels to the known categories in the order of the file, whatever the order of ``classes``."""
    known = [category['name'] for category in categories if category['name'] in classes]
    if repeated := [name for name, number in Counter(known).items() if number > 1]:
        report.error(f'{first_few(repeated)} is the name of several categories, and mmdet would count every one as a '
                     'class: rename or remove the other, or use knet_plugin.InstanceDataset, which leaves out the one '
                     'without objects', path)
        return
    others = [category['name'] for category in categories if category['name'] not in classes]
    for label, (name, found) in enumerate(zip_longest(classes, known)):
        if name != found:
            report.error(f'label {label} is {name!r} in metainfo.classes, but {found!r} in the categories of the file'
                         + _nearest(str(name), others) + f'; write classes={tuple(known + others)[:20]!r}', path)
            return


def _check_isthing(source: Source, file: Annotations, report: Report) -> None:
    things = source.dataset.metainfo.get('thing_classes')
    known = [category for category in file.categories if category['name'] in source.classes]
    absent = [category['name'] for category in known if 'isthing' not in category]
    if absent and not source.ours:
        report.error(f'{len(absent)} categories have no "isthing", which mmdet needs: {first_few(absent)}; add it, or '
                     'use knet_plugin.PanopticDataset', file.path, len(absent))
    for category in known if things is not None else ():
        if 'isthing' in category and bool(category['isthing']) != (category['name'] in things):
            report.error(f'category {category["name"]!r} has isthing={category["isthing"]} in the file, against '
                         'metainfo.thing_classes; change one of them', file.path)


def _nearest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name.lower(), [each.lower() for each in names], n=1, cutoff=0.6)
    return f'; did you mean {next(each for each in names if each.lower() == close[0])!r}?' if close else ''
