"""Rules on classes: of the model, the data set and the annotation file."""

import difflib
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from mmengine.config import Config

from knet_plugin.datasets.check.files import Annotations
from knet_plugin.datasets.check.report import Report
from knet_plugin.datasets.check.sources import Source
from knet_plugin.datasets.names import first_few

__all__ = ['check_categories', 'check_isthing', 'check_model_classes', 'check_same_classes', 'check_val_classes',
           'model_of', 'nearest_name', 'semantic_heads']


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


def check_model_classes(model: Mapping, source: Source, where: str, report: Report) -> None:
    """Compare the numbers of classes of the model with those of a data set, called ``where``."""
    if source.kind != 'semantic':
        if isinstance(head := model.get('panoptic_head'), Mapping):
            _check_panoptic_head(head, source.metainfo, where, report)
        return
    for name, head in semantic_heads(model).items():
        if _softmax_of_one_class(head):
            report.error(f'{name} has one output with a softmax, whose loss is always 0; use num_classes=2, '
                         'out_channels=1 and loss_decode=dict(type=\'CrossEntropyLoss\', use_sigmoid=True)')
        number = head.get('num_classes')
        if number is not None and number != len(source.classes):
            report.error(f'{name}.num_classes={number}, but metainfo.classes of the data set has '
                         f'{len(source.classes)} names: {first_few(source.classes, 8)}; change one of them', where)


def _softmax_of_one_class(head: Mapping) -> bool:
    """Whether a segmentor's head has a single output, and a loss that would normalise it to 1."""
    losses = head.get('loss_decode', dict(type='CrossEntropyLoss'))
    return (head.get('out_channels') or head.get('num_classes')) == 1 and any(
        str(loss.get('type')).endswith('CrossEntropyLoss') and not loss.get('use_sigmoid')
        for loss in (losses if isinstance(losses, list | tuple) else [losses]))


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


def check_same_classes(source: Source, first: Source, report: Report) -> None:
    """Compare the classes of a data set with those of the first one: a label must mean the same in both."""
    for label, (name, expected) in enumerate(zip_longest(source.classes, first.classes)):
        if name != expected:
            report.error(f'label {label} is {name!r} in the {source.section} data, but {expected!r} in the '
                         f'{first.section} data; write the same metainfo.classes in all data loaders',
                         getattr(source.dataset, 'ann_file', ''))
            return


def check_val_classes(report: Report) -> None:
    """Report classes of the training data that the validation data, if it has any and all of it was read, lack."""
    train, val = ([census for census in report.census if census.section == section] for section in ('train', 'val'))
    trained = {name: None for census in train for name in census.occurring}
    judged = {name for census in val for name in census.occurring}
    lacking = [name for name in trained if name not in judged]
    if lacking and judged and not any(census.sampled for census in val):
        report.warn(f'{len(lacking)} classes occur in the training data, but not in the validation data, so no metric '
                    f'judges them: {first_few(lacking, 8)}', val[0].file)


def check_categories(source: Source, file: Annotations, report: Report) -> None:
    """Compare ``metainfo`` of a data set with the categories of its annotation file."""
    classes, names = source.classes, [category['name'] for category in file.categories]
    default = list(getattr(type(source.dataset), 'METAINFO', {}).get('classes') or ()) == classes
    if not set(classes) & set(names) or default and not set(classes) <= set(names):
        why = ('metainfo is missing or has no "classes", so the data set takes '
               f'the {len(classes)} classes of {type(source.dataset).__name__}' if default
               else 'none of the names is the same')
        report.error(f'metainfo.classes {first_few(classes)} and the categories {first_few(names, 8)} do not fit: '
                     f'{why}; write metainfo=dict(classes={tuple(names[:20])!r})', file.path)
        return
    others = {each['id']: each['name'] for each in file.categories if each['name'] not in classes}
    if number := sum(each['category_id'] in others for objects in file.objects.values() for each in objects):
        report.warn(f'{number} objects are ignored, because their categories are not in metainfo.classes: '
                    f'{first_few(list(others.values()), 8)}', file.path)
    if source.ours:
        for name in [name for name in classes if name not in names]:
            nearest = nearest_name(name, list(others.values()))
            (report.error if nearest else report.warn)(
                f'metainfo.classes has {name!r}, which is no category of the file{nearest}', file.path)
    else:
        check_order(classes, names, file.path, source.kind, report)
    if source.kind == 'panoptic':
        check_isthing(source, file, source.ours, report)


def check_order(classes: Sequence[str], names: Sequence[str], path: str, kind: str, report: Report) -> None:
    """mmdet assigns labels to the known categories, called ``names``, in the order of the file."""
    known, others = ([name for name in names if (name in classes) == wanted] for wanted in (True, False))
    ours = 'Panoptic' if kind == 'panoptic' else 'Instance'
    for label, (name, found) in enumerate(zip_longest(classes, known)):
        if name != found:
            report.error(f'label {label} is {name!r} in metainfo.classes, but {found!r} in the categories of the file'
                         f'{nearest_name(str(name), others)}; list the classes in that order, or use '
                         f'knet_plugin.{ours}Dataset and knet_plugin.{ours}Metric, which take any', path)
            return


def check_isthing(source: Source, file: Annotations, ours: bool, report: Report) -> None:
    """Compare ``isthing`` of a file with the things of a data set; only ``ours`` do without ``isthing``."""
    things = list(source.metainfo.get('thing_classes') or ())
    known = [category for category in file.categories if category['name'] in source.classes]
    absent = [category['name'] for category in known if 'isthing' not in category]
    if absent and not ours:
        report.error(f'{len(absent)} categories have no "isthing", which mmdet needs: {first_few(absent)}; add it, or '
                     'use knet_plugin.PanopticDataset and knet_plugin.PanopticMetric', file.path)
    for category in known if things else ():
        if 'isthing' in category and bool(category['isthing']) != (category['name'] in things):
            report.error(f'category {category["name"]!r} has isthing={category["isthing"]} in the file, against '
                         'metainfo.thing_classes; change one of them', file.path)


def nearest_name(name: str, names: Sequence[str]) -> str:
    """A question after the most similar of the names, '' if there is none."""
    close = difflib.get_close_matches(name.lower(), [each.lower() for each in names], n=1, cutoff=0.6)
    return f'; did you mean {next(each for each in names if each.lower() == close[0])!r}?' if close else ''
