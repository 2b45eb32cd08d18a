"""Rules on metrics with annotation files: their faults would show only after the training that they judge."""

import os
from collections.abc import Iterable, Mapping, Sequence

from knet_plugin.datasets.check.class_rules import check_isthing, check_order, nearest_name
from knet_plugin.datasets.check.coco_rules import check_objects
from knet_plugin.datasets.check.files import Annotations, Files
from knet_plugin.datasets.check.png_rules import read_pngs
from knet_plugin.datasets.check.report import Report
from knet_plugin.datasets.check.sources import Metric, Source
from knet_plugin.datasets.names import first_few

__all__ = ['check_metric']


def check_metric(metric: Metric, sources: Sequence[Source], files: Files, report: Report, limit: int) -> None:
    """Check a metric's own files, and that they belong to the data sets of its section; read ``limit`` PNGs at most."""
    options, path = metric.options, metric.ann_file
    if metric.kind == 'semantic':
        _check_ignored(metric, sources, report)
        return
    folder = options.get('seg_prefix') if metric.kind == 'panoptic' and not options.get('format_only') else ''
    if folder is None:
        report.error(f'{metric.section}_evaluator: seg_prefix, the folder of the panoptic PNGs, is not set', path or '')
    elif folder and not os.path.isdir(folder) and not options.get('backend_args'):
        report.error(f'{metric.section}_evaluator: the folder seg_prefix does not exist', folder)
    if not path:
        return
    file = files.annotations(path, options.get('backend_args'))
    if isinstance(file, str):
        report.error(f'{metric.section}_evaluator.ann_file: {file}', path)
        return
    if file.file.panoptic != (metric.kind == 'panoptic') and file.file.data['annotations']:
        report.error(f'{metric.section}_evaluator: {metric.options["type"]} expects {metric.kind} annotations, and the '
                     'file has others', path)
    elif not options.get('format_only'):
        check_objects(file, metric.kind, metric.ours, report)
    if folder and os.path.isdir(folder):
        _check_pngs(metric, folder, file, sources, files, report, limit)
    if sources and sources[0].classes:
        _check_classes(metric, file, sources, report)
    _compare_images(metric, file, sources, files, report)


def _check_ignored(metric: Metric, sources: Sequence[Source], report: Report) -> None:
    """The metric must ignore the pixels that have no class in the data."""
    ignored = metric.options.get('ignore_index', 255)
    if wrong := [source for source in sources if source.void != ignored]:
        report.warn(f'{metric.section}_evaluator: ignore_index={ignored}, but pixels without class have the label '
                    f'{wrong[0].void} in the {metric.section} data; make them equal',
                    wrong[0].dataset.data_prefix.get('seg_map_path') or '')


def _check_classes(metric: Metric, file: Annotations, sources: Sequence[Source], report: Report) -> None:
    """Compare the categories of the metric's file with the classes of the first data set."""
    source, where = sources[0], f'{metric.section}_evaluator'
    known = [category['name'] for category in file.categories]
    # An instance metric knows only the things of a panoptic model, which come first.
    stuff = set(source.classes).difference(source.things) if metric.kind == 'instances' else set()
    expected = [name for name in source.classes if name in known or name not in stuff]
    if not set(expected) & set(known):
        report.error(f'{where}: the file has none of the classes of the data set ({first_few(source.classes)}), but '
                     f'{first_few(sorted(known), 8)}', file.path)
        return
    if not metric.ours:
        check_order(expected, known, file.path, metric.kind, report)
    elif not _same_file(file.path, [getattr(each.dataset, 'ann_file', '') for each in sources]):
        others = [name for name in known if name not in source.classes]
        for name in [name for name in expected if name not in known]:
            report.warn(f'{where}: the data set has the class {name!r}, which is no category of the file'
                        f'{nearest_name(name, others)}', file.path)
    if metric.kind == source.kind == 'panoptic':
        check_isthing(source, file, metric.ours, report)


def _same_file(path: str, paths: Iterable[str]) -> bool:
    return os.path.normpath(path) in map(os.path.normpath, paths)


def _check_pngs(metric: Metric, folder: str, file: Annotations, sources: Sequence[Source], files: Files,
                report: Report, limit: int) -> None:
    """Check the PNGs of the metric, unless they are those that a data set reads."""
    read = [source.dataset for source in sources if source.transform('LoadPanopticAnnotations') is not None]
    if any(_same_file(file.path, [dataset.ann_file]) and _same_file(folder, [dataset.data_prefix.get('seg') or ''])
           for dataset in read):
        return
    classes = sources[0].classes if sources else [category['name'] for category in file.categories]
    read_pngs(file, folder, classes, metric.ours, f'{metric.section}_evaluator: ', files, report, limit)


def _compare_images(metric: Metric, file: Annotations, sources: Sequence[Source], files: Files, report: Report) -> None:
    """The metric must know the images of the data set: others would count as images without a correct prediction."""
    known: dict[object, Mapping] = {}
    for source in sources:
        dataset = source.dataset
        if source.kind == 'semantic' or getattr(dataset, '_indices', None) is not None:
            return
        data = files.annotations(dataset.ann_file, getattr(dataset, 'backend_args', None))
        if isinstance(data, str):
            return
        known |= data.images
    lacking = [number for number in known if number not in file.images]
    more = [number for number in file.images if number not in known]
    if sources and (lacking or more):
        report.error(f'{metric.section}_evaluator: ann_file and the {metric.section} data have different images: '
                     f'{len(lacking)} ids only in the data ({first_few(lacking)}), {len(more)} only in ann_file '
                     f'({first_few(more)}); use files of the same images', file.path)
