"""Rules on the schedule: does it fit the length of the training?"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from knet_plugin.datasets.check.report import Report

__all__ = ['check_schedule']

_MAX_WARMUP = 1 / 3  # of the training


def check_schedule(cfg: Config, images: int, processes: int, report: Report) -> None:
    """Compare ``param_scheduler`` with the iterations of the training.

    Args:
        cfg: The config.
        images: Images of an epoch; 0 if unknown.
        processes: How many processes train.
        report: Gets a warning for a warm-up of more than a third of the training, and for decays beyond its end.
    """
    train_cfg = cfg.get('train_cfg') or {}
    loader = cfg.get('train_dataloader') or {}
    batch = (loader.get('batch_size') or 1) * processes
    epoch = math.ceil(images / batch) if images else 0
    if 'max_iters' in train_cfg:
        total, length = train_cfg['max_iters'], f'train_cfg.max_iters={train_cfg["max_iters"]}'
    else:
        epochs = train_cfg.get('max_epochs') or 0
        total = epochs * epoch
        length = f'{total} iterations (train_cfg.max_epochs={epochs}, {images} images, {batch} in a batch)'
    if not total:
        return
    for scheduler in _schedulers(cfg.get('param_scheduler')):
        _check_scheduler(scheduler, total, epoch, length, report)


def _schedulers(given: Any) -> Iterator[Mapping]:
    """All schedulers of the config, also of several optimizers."""
    if isinstance(given, Mapping) and 'type' in given:
        yield given
    elif isinstance(given, Mapping):
        for part in given.values():
            yield from _schedulers(part)
    elif isinstance(given, list | tuple):
        for part in given:
            yield from _schedulers(part)


def _check_scheduler(scheduler: Mapping, total: int, epoch: int, length: str, report: Report) -> None:
    """``total`` and ``epoch`` are iterations of the training and of an epoch, which may be unknown (0)."""
    unit = epoch if scheduler.get('by_epoch', True) else 1
    if unit == 0:
        return
    name, begin = str(scheduler['type']).split('.')[-1], scheduler.get('begin', 0)
    if name in ('LinearLR', 'ConstantLR') and begin == 0 and scheduler.get('start_factor', 1) < 1:
        end = scheduler.get('end', 0) * unit
        if math.isfinite(end) and end > max(total * _MAX_WARMUP, 1):
            report.warn(f'param_scheduler: the warm-up ({name}) takes {end} iterations, but the training has only '
                        f'{length}, so it hardly learns; set its end to about {max(total // 10, 1)} '
                        'iterations, or train longer')
    late = [milestone for milestone in scheduler.get('milestones', ()) if (begin + milestone) * unit >= total]
    if late:
        report.warn(f'param_scheduler: {name} lowers the learning rate at milestones={list(scheduler["milestones"])} '
                    f'({"epochs" if scheduler.get("by_epoch", True) else "iterations"}, from {begin} on), but '
                    f'{late} lie beyond the end of the training: {length}')
    if name in ('PolyLR', 'CosineAnnealingLR') and scheduler.get('end', 0) * unit > 2 * total:
        report.warn(f'param_scheduler: {name} ends at {scheduler["end"]}, but the training has only {length}, so the '
                    'learning rate hardly falls')
