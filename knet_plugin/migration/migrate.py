"""Whole configs."""

import importlib.util
from pathlib import Path
from typing import Any

from mmengine.config import Config

from knet_plugin.migration.detection import detector_config
from knet_plugin.migration.options import MigrationError, Report, bare_type
from knet_plugin.migration.semantic import is_iterative_head, segmentor_config

__all__ = ['importing_plugin', 'load_source', 'migrate_config']


def load_source(name: str) -> Config:
    """Read a config by its path, or by a name such as ``mmseg::fcn/NAME.py``.

    The modules that it names are not imported, because those of a foreign config need not be installed.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    path = Path(name)
    if '::' in name:
        package, _, relative = name.partition('::')
        spec = importlib.util.find_spec(package)
        path = Path((spec and spec.origin) or package).parent / '.mim/configs' / f'{relative.removesuffix(".py")}.py'
    if not path.is_file():
        raise FileNotFoundError(f'there is no config {name}')
    return Config.fromfile(path, import_custom_modules=False)


def migrate_config(cfg: Config | dict[str, Any], report: Report | None = None) -> Config:
    """Turn a config of another K-Net into one of ours.

    Of mmseg 1's K-Net configs only the decode head changes. Of the official release's configs (mmdet 2, mmseg 0.x) the
    model is migrated; data, schedule and runtime are left to the user.

    Args:
        cfg: The foreign config. It is not changed.
        report: Receives what was dropped, and what is left to the user.

    Raises:
        MigrationError: If the config has no foreign K-Net, or unknown or unsupported options. The message lists them.
    """
    report = Report() if report is None else report
    source = (cfg if isinstance(cfg, Config) else Config(cfg)).to_dict()
    model: Any = source.get('model') or {}
    heads = model.get('decode_head')
    result: dict[str, Any]
    if bare_type(model.get('type')) == 'KNet' and 'rpn_head' in model:
        result = dict(default_scope='mmdet', model=detector_config(model, report))
    elif any(map(is_iterative_head, heads if isinstance(heads, list | tuple) else [heads])):
        result = dict(default_scope='mmseg', model=segmentor_config(model, report))
    else:
        raise MigrationError('there is no K-Net to migrate: model must be an official KNet, or have a decode_head of '
                             f'mmseg\'s or the official IterativeDecodeHead, got model.type={model.get("type")!r}')
    report.check()
    if {'default_scope', 'optim_wrapper', 'train_dataloader', 'test_dataloader'} & source.keys():  # of mmseg 1
        return Config(importing_plugin(source | result))
    report.by_hand('model.data_preprocessor', None, 'set mean, std and bgr_to_rgb of the old Normalize transform')
    for name in sorted(source.keys() - {'model'}):
        report.by_hand(name, source[name], 'not migrated')
    return Config(importing_plugin(result))


def importing_plugin(cfg: dict[str, Any]) -> dict[str, Any]:
    """The config with this package among its ``custom_imports``, so that the hosts' own tools can read it."""
    given = cfg.get('custom_imports') or {}
    names = given.get('imports') or []
    imports = list(dict.fromkeys(['knet_plugin', *([names] if isinstance(names, str) else names)]))
    return {**cfg, 'custom_imports': {'allow_failed_imports': False, **given, 'imports': imports}}
