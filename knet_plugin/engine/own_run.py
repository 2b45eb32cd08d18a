"""A run on own data: its model, weights and schedule, written as a short config that inherits from one of ours."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pprint import pformat
from typing import Any

import torch
from mmengine.config import Config

from knet_plugin.checkpoint.pretrained import Weights
from knet_plugin.datasets.config_parts import BEST_METRICS, crop_side
from knet_plugin.datasets.description import SPLITS, DataDescription

__all__ = ['MODELS', 'OwnRun', 'class_settings', 'default_iterations', 'default_loading', 'default_short_side',
           'find_run', 'image_files', 'write_run']

# By the name of a model, its config and the weights that a training starts from.
MODELS = {
    'small': dict(panoptic=('knet-s3_effnet-lite0_panoptic', 'efficientnet-lite0'),
                  instance=('knet-s3_effnet-lite0_instance', 'efficientnet-lite0'),
                  semantic=('knet-s3_effnet-lite0_semantic', 'efficientnet-lite0')),
    'r50': dict(panoptic=('knet-s3_r50_panoptic', 'knet-s3_r50_fpn_ms-3x_coco-panoptic'),
                instance=('knet-s3_r50_instance', 'knet-s3_r50_fpn_ms-3x_coco'),
                semantic=('knet-s3_r50_semantic', 'knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512')),
}
VALIDATIONS = 5
WARMUP = 0.05  # share of the iterations


@dataclass(frozen=True)
class OwnRun:
    """Settings of a training on own data.

    Attributes:
        description: The data.
        task: 'panoptic', 'instance' or 'semantic'.
        base: Config of the model.
        weights: File that the training starts from. None: random weights. 'config': as the config says.
        short_side: Size of the images in pixels.
        iterations: Length of the training; with ``minutes`` a guess.
        minutes: Length of the training, with validation, by the clock.
        batch_size: Images per iteration.
        num_workers: Processes that load images.
    """

    description: DataDescription
    task: str
    base: Path
    weights: Weights | str | None
    short_side: int
    iterations: int
    minutes: float | None
    batch_size: int
    num_workers: int

    @property
    def name(self) -> str:
        """Name of the run: that of the data and the task."""
        return f'{self.description.root.name}-{self.task}'

    def summary(self) -> str:
        """The settings in one line."""
        length = f'{self.minutes:g} minutes' if self.minutes else f'{self.iterations} iterations'
        weights = self.weights.path.name if isinstance(self.weights, Weights) else self.weights or 'random weights'
        return (f'{self.base.stem} from {weights}, {length} of {self.batch_size} images, short side '
                f'{self.short_side} pixels')

    def text(self) -> str:
        """Source of the config."""
        base = Config.fromfile(self.base)
        model = class_settings(base.model, self.description, self.task)
        _merge(model, _start_settings(base.model, self.weights))
        if self.task == 'semantic':
            model.setdefault('data_preprocessor', {})['size'] = (crop_side(self.short_side),) * 2
        loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
        deletions = [f"{name}['_delete_'] = True" for name in loaders if name in base]
        limit = f"""
custom_hooks = [*_base_.get('custom_hooks', []), dict(type='knet_plugin.TimeLimitHook', minutes={self.minutes:g})]
""" if self.minutes else ''
        guess = '  # a guess, until TimeLimitHook has measured an iteration' if self.minutes else ''
        start = f'\nload_from = {str(self.weights.path)!r}\n' if _is_whole(self.weights) else ''
        delete = '_delete_=True, ' if 'train_cfg' in base else ''
        return f"""\
# {self.task.capitalize()} segmentation of {self.description.root.name}. `knet train --data` wrote this file; edit it and
# run `knet train FILE` or `mim train knet_plugin FILE`.
_base_ = {str(self.base)!r}

from knet_plugin.datasets.config_parts import data_config

data_root = {str(self.description.root)!r}
short_side = {self.short_side}  # of the images, in pixels
batch_size = {self.batch_size}
max_iters = {self.iterations}{guess}
warmup = {max(1, round(WARMUP * self.iterations))}
{start}
train_dataloader, val_dataloader, test_dataloader, val_evaluator, test_evaluator = data_config(
    data_root, {self.task!r}, short_side, batch_size, num_workers={self.num_workers}).values()
{"".join(line + chr(10) for line in deletions)}
model = {_literal(model)}

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=warmup),
    dict(type='PolyLR', eta_min=1e-6, power=0.9, by_epoch=False, begin=warmup, end=max_iters),
]
train_cfg = dict({delete}type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max(1, max_iters // {VALIDATIONS}))
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=max(1, max_iters // {VALIDATIONS}), max_keep_ckpts=1,
                    save_best={BEST_METRICS[self.task]!r}, rule='greater'))
log_processor = dict(by_epoch=False)
{limit}"""


def class_settings(model: Mapping[str, Any], description: DataDescription, task: str) -> dict[str, Any]:
    """What the classes of the data change in the config of a model.

    Raises:
        ValueError: The model is not one of the task.
    """
    if task == 'semantic':
        heads = {name: _with_classes(model[name], len(description.classes))
                 for name in ('decode_head', 'auxiliary_head') if model.get(name)}
        if not heads.get('decode_head'):
            raise ValueError('model.decode_head is missing or has no num_classes: semantic segmentation needs a config '
                             'of mmseg')
        return heads
    if 'panoptic_head' not in model:
        raise ValueError(f'model.panoptic_head is missing: {task} segmentation needs a config of KNet')
    stuff = len(description.stuff) if task == 'panoptic' else 0
    return dict(panoptic_head=dict(num_things_classes=len(description.things), num_stuff_classes=stuff))


def _with_classes(head: Any, number: int) -> Any:
    """The parts of a head, or of a list of heads, that set the number of classes."""
    if isinstance(head, list | tuple):
        return [_merge(Config(dict(head=each)).to_dict()['head'], _with_classes(each, number)) for each in head]
    settings = {key: part for key, value in head.items()
                if isinstance(value, Mapping) and (part := _with_classes(value, number))}
    return settings | (dict(num_classes=number) if 'num_classes' in head else {})


def _start_settings(model: Mapping[str, Any], weights: Weights | str | None) -> dict[str, Any]:
    """What the weights at the start change in the config of a model."""
    if weights == 'config':
        return {}
    assert not isinstance(weights, str)
    settings: dict[str, Any] = {} if weights and not weights.whole_model else dict(backbone=dict(init_cfg=None))
    if weights and not weights.whole_model:
        settings['backbone'] = dict(init_cfg=dict(type='Pretrained', checkpoint=str(weights.path)))
    if weights is None:  # random layers and statistics must not stay as they are
        of_efficientnet = 'EfficientNet' in str(model['backbone']['type'])
        scratch = dict(frozen_stages=0 if of_efficientnet else -1, norm_eval=False)
        settings['backbone'].update({key: value for key, value in scratch.items() if key in model['backbone']})
    if model.get('pretrained'):  # mmseg's other place for the backbone's weights
        settings['pretrained'] = None
    return settings


def _is_whole(weights: Weights | str | None) -> bool:
    return isinstance(weights, Weights) and weights.whole_model


def default_iterations(images: int, batch_size: int) -> int:
    """Iterations that show each image about 50 times: at least 600, at most 5,000, in hundreds."""
    return min(5000, max(600, round(50 * images / batch_size, -2)))


def default_short_side(description: DataDescription) -> int:
    """Short side of the training images: the median of some of them, in steps of 32, from 128 to 256 pixels."""
    import cv2

    files = image_files(description)
    sizes = [image.shape[:2] for file in files[::max(1, len(files) // 16)]
             if (image := cv2.imread(str(file), cv2.IMREAD_REDUCED_GRAYSCALE_8)) is not None]
    short = sorted(8 * min(size) for size in sizes)
    middle = short[len(short) // 2] if short else 256
    return min(256, max(128, round(middle / 32) * 32))


def image_files(description: DataDescription) -> list[Path]:
    """Training images of the data."""
    folder = description.root / 'images' / SPLITS[0]
    files = sorted(path for path in folder.rglob('*') if path.is_file())
    if not files:
        raise ValueError(f'{folder} holds no images: prepare the data again by knet data prepare')
    return files


def default_loading(images: int, model: str) -> tuple[int, int]:
    """Batch size and number of processes that load images, for the machine at hand."""
    large = model != 'small' and not torch.cuda.is_available()
    return min(images, 2 if large else 8), min(4, (os.cpu_count() or 1) // 2)


def find_run(folder: Path, name: str) -> Path | None:
    """Config of the latest run of this name in ``folder``: ``NAME.py``, ``NAME-2.py`` and so on."""
    found = None
    for candidate in _names(name):
        if not (folder / f'{candidate}.py').is_file():
            return found
        found = folder / f'{candidate}.py'
    return None


def write_run(text: str, folder: Path, name: str, force: bool = False) -> Path:
    """Write the config of a new run as ``NAME.py``, or under the next free name: ``NAME-2.py`` and so on.

    A name is free if neither the file nor the folder ``NAME`` exists, or if the file has the same text and the folder
    no checkpoint yet. ``force`` replaces the file ``NAME.py`` and removes the folder ``NAME``.

    Returns:
        The file.
    """
    for candidate in _names(name):
        config, run = folder / f'{candidate}.py', folder / candidate
        if force:
            shutil.rmtree(run, ignore_errors=True)
        unused = not config.exists() and not run.exists()
        unstarted = config.is_file() and config.read_text() == text and not any(run.glob('*.pth'))
        if force or unused or unstarted:
            break
    folder.mkdir(parents=True, exist_ok=True)
    config.write_text(text)
    return config


def _names(name: str) -> itertools.chain[str]:
    return itertools.chain([name], (f'{name}-{number}' for number in itertools.count(2)))


def _merge(target: dict[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested settings into ``target``, and return it."""
    for key, value in source.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value
    return target


def _literal(value: dict[str, Any]) -> str:
    return pformat(value, width=110, sort_dicts=False)
