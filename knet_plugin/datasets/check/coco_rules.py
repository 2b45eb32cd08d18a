"""Rules on COCO files of instances and panoptic segmentation, and their census."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from statistics import median_low

from knet_plugin.datasets.check.class_rules import check_categories, check_model_classes
from knet_plugin.datasets.check.files import Annotations, Files
from knet_plugin.datasets.check.image_rules import check_images
from knet_plugin.datasets.check.png_rules import check_pngs
from knet_plugin.datasets.check.report import Census, Report
from knet_plugin.datasets.check.sources import Source
from knet_plugin.datasets.coco_file import FOREIGN
from knet_plugin.datasets.names import first_few

__all__ = ['check_coco', 'check_objects', 'kernels_of', 'with_classes']

_DEFAULT_KERNELS = 100


def with_classes(source: Source, files: Files, report: Report) -> Source | None:
    """Add the classes that our data sets take from the annotation file; None, after an error, if that is impossible."""
    if not source.ours or source.kind == 'semantic':
        return source
    path = source.dataset.ann_file
    file = files.annotations(path, getattr(source.dataset, 'backend_args', None), source.classes)
    if isinstance(file, str):
        report.error(file, path)
        return None
    if source.kind == 'panoptic':
        from knet_plugin.datasets.panoptic import panoptic_metainfo  # needs mmdet

        try:
            return replace(source, metainfo=panoptic_metainfo(file.categories, source.metainfo, path))
        except ValueError as error:
            report.error(str(error).removeprefix(f'{path}: '), path)
            return None
    return replace(source, metainfo={'classes': [each['name'] for each in file.categories], **source.metainfo})


def check_coco(source: Source, model: Mapping, files: Files, report: Report, limit: int) -> None:
    """Check a data set with a COCO file and add its census."""
    path, backend_args = source.dataset.ann_file, getattr(source.dataset, 'backend_args', None)
    check_model_classes(model, source, path, report)
    file = files.annotations(path, backend_args, source.classes)
    if isinstance(file, str):
        report.error(file, path)
        return
    check_categories(source, file, report)
    if not file.images:
        report.error('"images" is empty', path)
        return
    if file.file.panoptic != (source.kind == 'panoptic') and file.file.data['annotations']:
        have, other = ('panoptic', 'Instance') if source.kind == 'panoptic' else ('instance', 'Panoptic')
        report.error(f'the data set expects {have} annotations, and the file has others; use another file, or '
                     f'type=\'knet_plugin.{other}Dataset\'', path)
        return
    if not backend_args:
        paths = {number: os.path.join(source.dataset.data_prefix.get('img') or '', image['file_name'])
                 for number, image in file.images.items()}
        sizes = {paths[number]: (image['width'], image['height']) for number, image in file.images.items()}
        check_images(source, list(paths.values()), sizes, model, files, report, limit)
        if source.transform('LoadPanopticAnnotations') is not None:
            check_pngs(source, file, files, report, limit)
    if source.kind == 'panoptic' and source.transform('CopyPaste') and not source.uses_ours('CopyPaste'):
        report.error('CopyPaste pastes objects, but leaves the semantic map as it was; use '
                     'type=\'knet_plugin.CopyPaste\'', path)
    check_objects(file, source.kind, source.ours, report, '"iscrowd"')  # which mmdet's data sets do not need
    report.census.append(_census(source, file, model, report))


def check_objects(file: Annotations, kind: str, ours: bool, report: Report, fine: str = 'nothing') -> None:
    """Report what our data sets and metrics put right, which is an error of mmdet's, unless it ends with ``fine``."""
    for line in file.file.notes:
        report.warn(line, file.path)
    name = 'Panoptic' if kind == 'panoptic' else 'Instance'
    advice = f'correct the file, or use knet_plugin.{name}Dataset and knet_plugin.{name}Metric'
    for reason, number in file.file.skipped.items():
        if ours or kind == 'instances' and reason in FOREIGN:
            report.warn(f'{number} objects are skipped: {reason}', file.path)
        else:
            report.error(f'{number} objects have {reason}; {advice}, which skip them', file.path)
    for what, number in file.file.needed.items():
        if not ours and not what.endswith(fine):
            report.error(f'{number} {what}, which mmdet does not take; {advice}', file.path)


def kernels_of(model: Mapping) -> int | None:
    """Number of objects that the model can detect in an image, if it has a fixed number of kernels or queries."""
    head = model.get('panoptic_head')
    if not isinstance(head, Mapping):
        return None
    if str(head.get('type')).endswith('KernelIterHead'):
        return (head.get('kernel_head') or {}).get('num_kernels', _DEFAULT_KERNELS)
    return head.get('num_queries')


def _census(source: Source, file: Annotations, model: Mapping, report: Report) -> Census:
    """Count objects, and images that the data set drops."""
    names = {category['id']: category['name'] for category in file.categories if category['name'] in source.classes}
    things = set(source.things)
    census = Census(source.section, objects=dict.fromkeys(source.classes, 0), file=file.path)
    dropped: Counter[str] = Counter()
    numbers = []
    for image_id, image in file.images.items():
        objects = [each for each in file.objects.get(image_id, ()) if each.get('category_id') in names]
        for each in objects:
            census.objects[names[each['category_id']]] += 1
            if source.kind == 'panoptic':
                name = names[each['category_id']]
                census.pixels[name] = census.pixels.get(name, 0) + (each.get('area') or 0)
        numbers.append(sum(not each.get('iscrowd') and names[each['category_id']] in things for each in objects))
        if reason := _drop_reason(source, image, objects, {key for key, name in names.items() if name in things}):
            dropped[reason] += 1
    if any(census.pixels.values()):
        total = sum(image['width'] * image['height'] for image in file.images.values())
        census.pixels = {name: census.pixels.get(name, 0) for name in source.classes}
        census.ignored = max(1 - sum(census.pixels.values()) / total, 0)
    census.images, census.dropped = len(file.images) - dropped.total(), dict(dropped)
    census.objects_per_image = (median_low(numbers), max(numbers))
    _judge(source, census, numbers, kernels_of(model), file.path, report)
    return census


def _drop_reason(source: Source, image: Mapping, objects: list[dict], thing_ids: set) -> str:
    """Why the host drops an image, or ''."""
    rules = source.dataset.filter_cfg or {}
    if source.dataset.test_mode:
        return ''
    if rules.get('filter_empty_gt'):
        if not objects:
            return 'no object'
        things = [each for each in objects if each['category_id'] in thing_ids and not each.get('iscrowd')]
        if source.kind == 'panoptic' and not source.ours and not things:
            return 'stuff only'
    side = rules.get('min_size', 0)
    return f'smaller than {side} pixels' if min(image['width'], image['height']) < side else ''


def _judge(source: Source, census: Census, numbers: list[int], kernels: int | None, path: str,
           report: Report) -> None:
    if census.images == 0:
        report.error(f'no image is left; dropped: {census.dropped}', path)
    if number := census.dropped.get('stuff only'):
        report.warn(f'{number} of {len(numbers)} images have only stuff, and mmdet drops them from the '
                    f'{source.section} data; use knet_plugin.PanopticDataset, or filter_cfg=None', path)
    if source.section == 'train':
        never = [name for name, number in census.objects.items() if number == 0]
        if never and len(never) < len(source.classes):
            report.warn(f'{len(never)} classes have no object in the training data: {first_few(never, 8)}', path)
        elif never:
            report.error('no object of any class in the training data', path)
    elif source.section == 'val' and census.images and not census.occurring:
        report.warn('no object of any class in the validation data, so its metrics say nothing', path)
    if kernels and (crowded := [number for number in numbers if number > kernels]):
        report.warn(f'{len(crowded)} images have more objects than the model has kernels: up to {max(crowded)} '
                    f'objects, {kernels} kernels; the others are never detected. Raise '
                    'model.panoptic_head.kernel_head.num_kernels and test_cfg.max_per_img', path)
