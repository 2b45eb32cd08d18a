"""A whole config at once."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from knet_plugin.migration.data import data_config
from knet_plugin.migration.detection import detector_config
from knet_plugin.migration.options import MigrationError, Options, Report, bare_type
from knet_plugin.migration.semantic import GENERATORS, is_iterative_head, segmentor_config
from knet_plugin.migration.training import runtime_config, schedule_config

__all__ = ['load_source', 'migrate_config']

# What only the configs of mmcv 1 have.
_OLD = ('data', 'optimizer', 'optimizer_config', 'lr_config', 'runner', 'checkpoint_config', 'log_config', 'evaluation',
        'dist_params', 'workflow', 'resume_from')
# And what only those of mmengine have: mmseg's schedules still define an `optimizer`, as a variable.
_NEW = ('optim_wrapper', 'param_scheduler', 'train_dataloader', 'test_dataloader', 'default_scope')


def load_source(name: str) -> Config:
    """Read a foreign config without importing what it wants imported, which need not be installed.

    Args:
        name: A path, or a name such as ``mmseg::knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py``.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if '::' in name:
        package, _, path = name.partition('::')
        name = f'{name.removesuffix(".py")}.py'
        spec = importlib.util.find_spec(package)
        stored = Path(spec.origin or '').parent / '.mim/configs' / f'{path.removesuffix(".py")}.py' if spec else None
        if stored is None or not stored.is_file():
            raise FileNotFoundError(f'there is no config {name}' + ('' if spec else f': {package} is not installed'))
        name = str(stored)
    if not Path(name).is_file():
        raise FileNotFoundError(f'there is no config {name}')
    return Config.fromfile(name, import_custom_modules=False)


def migrate_config(cfg: Config | dict[str, Any], report: Report | None = None) -> Config:
    """Turn a config of another K-Net into one of ours.

    Understood are mmseg 1's K-Net configs, of which only the decode head changes, and those of the official release
    (mmdet 2, mmseg 0.x), of which everything does.

    Args:
        cfg: The foreign config, with its bases merged; at least its ``model``. It is not changed.
        report: Is told what was dropped, and what is left to do by hand.

    Returns:
        Our config.

    Raises:
        MigrationError: If there is no other K-Net in the config, or if it has options that are unknown or not
            supported; the message lists all of them with path and value.
    """
    report = Report() if report is None else report
    source: dict[str, Any] = copy.deepcopy(cfg.to_dict() if isinstance(cfg, Config) else _plain(cfg))
    model = source.get('model')
    if not isinstance(model, dict):
        raise MigrationError(f'model must be a dict, got {model!r}')
    if bare_type(model.get('type')) == 'KNet' and 'rpn_head' in model:
        result = _old(source, 'mmdet', report)
    elif heads := _iterative_heads(model):
        released = any(bare_type((head.get('kernel_generate_head') or {}).get('type')) in GENERATORS for head in heads)
        old = not any(name in source for name in _NEW) and (released or any(name in source for name in _OLD))
        result = _old(source, 'mmseg', report) if old else source | dict(model=segmentor_config(model, report))
    else:
        raise MigrationError('there is no K-Net to migrate: model.type must be the official KNet, or a decode head '
                             f'mmseg\'s or the official IterativeDecodeHead, got model.type={model.get("type")!r}')
    report.check()
    return Config(importing_plugin(result))


def importing_plugin(cfg: dict[str, Any]) -> dict[str, Any]:
    """The same config with this package among its ``custom_imports``, so that the hosts' own tools can read it too.

    Raises:
        ValueError: If there are ``custom_imports`` of another form than mmengine's.
    """
    given = cfg.get('custom_imports') or {}
    if not isinstance(given, Mapping):
        raise ValueError(f'custom_imports must be a dict with imports, got custom_imports={given!r}')
    names = given.get('imports') or []
    names = [names] if isinstance(names, str) else list(names)
    imports = list(dict.fromkeys(['knet_plugin', *names]))
    return {**cfg, 'custom_imports': {'allow_failed_imports': False, **given, 'imports': imports}}


def _plain(value: Any) -> Any:
    """Dicts of mmengine as plain ones."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    return value


def _iterative_heads(model: dict[str, Any]) -> list[dict]:
    heads = model.get('decode_head')
    candidates: list[Any] = list(heads) if isinstance(heads, list | tuple) else [heads]
    return [head for head in candidates if is_iterative_head(head)]


def _old(source: dict[str, Any], scope: str, report: Report) -> dict[str, Any]:
    """A whole config of mmcv 1's time."""
    options = Options(source, '', report)
    evaluation = options.take('evaluation') or {}
    translate = detector_config if scope == 'mmdet' else segmentor_config
    model = translate(options.require('model'), report)
    schedule = schedule_config(options, evaluation)
    by_epoch = schedule.get('train_cfg', {}).get('type', 'EpochBasedTrainLoop') == 'EpochBasedTrainLoop'
    stuff = model.get('panoptic_head', {}).get('num_stuff_classes', 0)
    data = data_config(options, evaluation, scope, stuff > 0, by_epoch)
    model = dict(type=model.pop('type'), data_preprocessor=data.pop('data_preprocessor')) | model
    runtime = runtime_config(options, evaluation, scope, by_epoch)
    # Whatever else the file defines was meant for its own use: mmcv's tools read nothing more.
    options.drop(options.names, 'a variable of the file')
    return dict(model=model) | data | schedule | runtime
