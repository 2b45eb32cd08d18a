"""Judges the data sets, metrics and schedule of a config."""

import os
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from knet_plugin.datasets.check.class_rules import check_same_classes, check_val_classes, model_of
from knet_plugin.datasets.check.coco_rules import check_coco, kernels_of, with_classes
from knet_plugin.datasets.check.evaluator_rules import check_metric
from knet_plugin.datasets.check.files import Files
from knet_plugin.datasets.check.label_rules import check_label_maps
from knet_plugin.datasets.check.report import Report
from knet_plugin.datasets.check.schedule_rules import check_schedule
from knet_plugin.datasets.check.sources import SECTIONS, Source, read_metrics, read_sources

__all__ = ['check_config', 'check_data']

_RULES = dict(instances=check_coco, panoptic=check_coco, semantic=check_label_maps)


def check_config(cfg: Config, sections: Sequence[str] = SECTIONS, limit: int = 1000, processes: int = 1,
                 files: Files | None = None) -> Report:
    """Check what the data sets and metrics of a config refer to, before a run builds them.

    Every annotation file is read once, every folder listed once. Of the images only the headers are read. Data of an
    other kind than COCO instances, COCO panoptic and mmseg's label maps is not checked.

    Args:
        cfg: A config; it is not changed.
        sections: Which of 'train', 'val' and 'test' to check. Sections that the config lacks are left out, and so is
            'test' if it equals 'val'.
        limit: At most so many images and label maps of a data set are opened, evenly spaced.
        processes: How many processes train, for the check of the schedule.
        files: What other checks have read.

    Returns:
        All findings, and a census of each data set.
    """
    report, files, model = Report(), files or Files(), model_of(cfg)
    report.kernels = kernels_of(model)
    found: list[Source] = []
    for section in sections:
        if section == 'test' and 'val' in sections and _same(cfg, 'test', 'val'):
            continue
        sources = [] if _without_folder(cfg, section, report) else read_sources(cfg, section, report)
        sources = [known for source in sources if (known := with_classes(source, files, report))]
        for source in sources:
            with report.guard(f'the {section} data', getattr(source.dataset, 'ann_file', '')):
                _RULES[source.kind](source, model, files, report, limit)
        if sources:
            for metric in read_metrics(cfg, section):
                with report.guard(f'{section}_evaluator', metric.ann_file or ''):
                    check_metric(metric, sources, files, report, limit)
        for source in sources:
            check_same_classes(source, (found or sources)[0], report)
        found += sources
    check_val_classes(report)
    if 'train' in sections:
        times = max((source.times for source in found if source.section == 'train'), default=1)
        images = sum(census.images for census in report.census if census.section == 'train')
        check_schedule(cfg, images * times, processes, report)
    return report


def check_data(path: str | Path, limit: int = 1000) -> Report:
    """Check a folder that ``knet data prepare`` wrote, for the small model of each task that it can train.

    The census is that of the default task of the folder: the data of the others is the same.

    Args:
        path: The folder, or its ``data.yml``.
        limit: See ``check_config``.

    Raises:
        ValueError: There is no description, or it is wrong.
    """
    from knet_plugin.cli import resolve_config
    from knet_plugin.datasets.config_parts import data_config
    from knet_plugin.datasets.description import DataDescription
    from knet_plugin.engine.own_run import MODELS, class_settings

    description = DataDescription.read(path)
    report, files = Report(), Files()
    for task in description.tasks:
        cfg = Config.fromfile(resolve_config(MODELS['small'][task][0]))
        cfg.merge_from_dict(dict(model=class_settings(cfg.model, description, task)))
        cfg = Config(dict(data_config(description, task), model=cfg.model, default_scope=cfg.default_scope))
        found = check_config(cfg, limit=limit, files=files)
        if task != description.task:
            found.census = []
        report.merge(found)
    return report


def _same(cfg: Config, section: str, other: str) -> bool:
    return all(cfg.get(f'{section}_{part}') == cfg.get(f'{other}_{part}') for part in ('dataloader', 'evaluator'))


def _without_folder(cfg: Config, section: str, report: Report) -> bool:
    """Report folders ``data_root`` that do not exist: then nothing else of the section is worth a line."""
    pending, missing = [cfg.get(f'{section}_dataloader')], False
    while pending:
        part = pending.pop()
        if not isinstance(part, dict):
            continue
        root = part.get('data_root')
        paths = [part.get('ann_file'), *(part.get('data_prefix') or {}).values()]
        needed = any(path and not os.path.isabs(path) for path in paths) or not any(paths)
        if root and needed and not part.get('backend_args') and '://' not in str(root) and not os.path.isdir(root):
            report.error('the folder data_root does not exist; put the data there, or set data_root of the data '
                         'loaders and the paths of the evaluators', root)
            missing = True
        pending += [part.get('dataset'), *(part.get('datasets') or ())]
    return missing
