"""A run on own data: its model, weights and schedule, written as a short config that inherits from one of ours."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from knet_plugin.checkpoint.pretrained import Weights
from knet_plugin.datasets.config_parts import BEST_METRICS, crop_side
from knet_plugin.datasets.description import DataDescription

__all__ = ['CENTRES', 'MODELS', 'OwnRun', 'class_settings', 'data_line']

# By the name of a model, its config and the weights that a training starts from.
MODELS = {
    'small': dict(panoptic=('knet-s3_effnet-lite0_panoptic', 'efficientnet-lite0'),
                  instance=('knet-s3_effnet-lite0_instance', 'efficientnet-lite0'),
                  semantic=('knet-s3_effnet-lite0_semantic', 'efficientnet-lite0')),
    'r50': dict(panoptic=('knet-s3_r50_panoptic', 'knet-s3_r50_fpn_ms-3x_coco-panoptic'),
                instance=('knet-s3_r50_instance', 'knet-s3_r50_fpn_ms-3x_coco'),
                semantic=('knet-s3_r50_semantic', 'knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512')),
    'swin': dict(panoptic=('knet-s3_swin-t_panoptic', 'swin-t'),
                 instance=('knet-s3_swin-t_instance', 'swin-t'),
                 semantic=('knet-s3_swin-t_semantic', 'swin-t')),
}
# The models whose heads start from random weights, and so may have any number of kernels: their configs for many small
# objects.
CENTRES = {
    'small': dict(panoptic='knet-s3-centres_effnet-lite0_panoptic', instance='knet-s3-centres_effnet-lite0_instance'),
    'swin': dict(panoptic='knet-s3-centres_swin-t_panoptic', instance='knet-s3-centres_swin-t_instance'),
}
VALIDATIONS = 5
_CHECK = 'knet_plugin.DataCheckHook'
_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
_WARMUP = 0.05  # share of the iterations
_TEMPLATE = """\
# {title} segmentation of {data}, by `knet train --data`.
# Edit it, and run `knet train FILE` or `mim train knet_plugin FILE`.
_base_ = {base!r}

from knet_plugin.datasets.config_parts import data_config

{data_line}
short_side = {short_side}  # of the images, in pixels
batch_size = {batch_size}
max_iters = {iterations}
warmup = {warmup}
interval = max(1, max_iters // {validations})  # between validations
{load_from}
train_dataloader, val_dataloader, test_dataloader, val_evaluator, test_evaluator = data_config(
    data_root, {task!r}, short_side, batch_size, num_workers={num_workers}).values()
{replaced}
model = dict(
{model})
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=warmup),
    dict(type='PolyLR', eta_min=1e-6, power=0.9, by_epoch=False, begin=warmup, end=max_iters),
]
train_cfg = dict({delete}type='IterBasedTrainLoop', max_iters=max_iters, val_interval=interval)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=interval, max_keep_ckpts=1,
                    save_best={best!r}, rule='greater'))
log_processor = dict(by_epoch=False)
custom_hooks = {hooks}
"""


@dataclass(frozen=True)
class OwnRun:
    """Settings of a training on own data."""

    description: DataDescription
    task: str  # 'panoptic', 'instance' or 'semantic'
    base: Path  # config of the model
    weights: Weights | str | None  # what the training starts from; 'config': as the config says, None: random weights
    short_side: int  # of the images, in pixels
    iterations: int  # with minutes, a guess
    minutes: float | None  # length of the training, with validation, by the clock
    batch_size: int
    num_workers: int  # processes that load images
    kernels: int | None = None  # for instances, and objects per image in a result; None: as the config says

    @property
    def name(self) -> str:
        """Name of the run: that of the data and the task."""
        return f'{self.description.root.name}-{self.task}'

    def summary(self) -> str:
        """Return the settings in one line."""
        length = f'{self.minutes:g} minutes' if self.minutes else f'{self.iterations} iterations'
        weights = self.weights.path.name if isinstance(self.weights, Weights) else self.weights or 'random weights'
        return (f'{self.base.stem} from {weights}, {length} of {self.batch_size} images, short side '
                f'{self.short_side} pixels')

    def text(self) -> str:
        """Return the source of the config."""
        base = Config.fromfile(self.base)
        guess = '  # a guess, until TimeLimitHook has measured an iteration' if self.minutes else ''
        load_from = ''
        if isinstance(self.weights, Weights) and self.weights.whole_model:
            load_from = f'load_from = {str(self.weights.path)!r}\n'
        return _TEMPLATE.format(
            title=self.task.capitalize(), data=self.description.root.name, base=str(self.base),
            data_line=data_line(self.description), short_side=self.short_side, batch_size=self.batch_size,
            iterations=f'{self.iterations}{guess}', warmup=max(1, round(_WARMUP * self.iterations)),
            validations=VALIDATIONS, load_from=load_from, task=self.task, num_workers=self.num_workers,
            replaced=''.join(f'{name}[\'_delete_\'] = True\n' for name in _LOADERS if name in base),
            model=''.join(f'    {name}={_call(part)},\n' for name, part in self._model(base).items()),
            delete='_delete_=True, ' if 'train_cfg' in base else '', best=BEST_METRICS[self.task],
            hooks=self._hooks(base))

    def _model(self, base: Config) -> dict[str, Any]:
        model = class_settings(base.model, self.description, self.task)
        _merge(model, _start_settings(base.model, self.weights))
        if self.kernels:
            _merge(model, dict(panoptic_head=dict(kernel_head=dict(num_kernels=self.kernels)),
                               test_cfg=dict(max_per_img=self.kernels)))
        if self.task == 'semantic':
            model.setdefault('data_preprocessor', {})['size'] = (crop_side(self.short_side),) * 2
        return model

    def _hooks(self, base: Config) -> str:
        hooks: list[dict[str, Any]] = []
        if not any(hook['type'] == _CHECK for hook in base.get('custom_hooks', [])):
            hooks.append(dict(type=_CHECK))
        if self.minutes:
            hooks.append(dict(type='knet_plugin.TimeLimitHook', minutes=self.minutes, validations=VALIDATIONS))
        return f'[*_base_.get(\'custom_hooks\', []), {_call(hooks)[1:]}'


def data_line(description: DataDescription) -> str:
    """Return the line of a run's config that says where its data is."""
    return f'data_root = {os.path.abspath(description.root)!r}'


def class_settings(model: Mapping[str, Any], description: DataDescription, task: str) -> dict[str, Any]:
    """Return what the classes of the data change in the config of a model.

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
    """Return the parts of a head that set the number of classes; of a list of heads, which is replaced, everything."""
    if isinstance(head, list | tuple):
        return [_merge(Config(dict(head=each)).to_dict()['head'], _with_classes(each, number)) for each in head]
    settings = {key: part for key, value in head.items()
                if isinstance(value, Mapping) and (part := _with_classes(value, number))}
    return settings | (dict(num_classes=number) if 'num_classes' in head else {})


def _start_settings(model: Mapping[str, Any], weights: Weights | str | None) -> dict[str, Any]:
    """Return what the weights at the start change in the config of a model."""
    if isinstance(weights, str):  # 'config'
        return {}
    backbone: dict[str, Any] = dict(init_cfg=None)
    if weights is None:  # random layers and statistics must not stay as they are
        of_efficientnet = 'EfficientNet' in str(model['backbone']['type'])
        # with_cp would update the statistics of batch norms twice.
        scratch = dict(frozen_stages=0 if of_efficientnet else -1, norm_eval=False, with_cp=False)
        backbone.update({key: value for key, value in scratch.items() if key in model['backbone']})
    elif not weights.whole_model:
        backbone['init_cfg'] = dict(type='Pretrained', checkpoint=str(weights.path))
    # 'pretrained' is mmseg's other place for the backbone's weights.
    return dict(backbone=backbone, **dict(pretrained=None) if model.get('pretrained') else {})


def _merge(target: dict[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested settings into ``target``, and return it."""
    for key, value in source.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value
    return target


def _call(value: Any) -> str:
    """Return a value as source, with mappings as calls of ``dict``."""
    if isinstance(value, Mapping):
        return f'dict({", ".join(f"{key}={_call(item)}" for key, item in value.items())})'
    if isinstance(value, list | tuple):
        return f'[{", ".join(map(_call, value))}]'
    return repr(value)
