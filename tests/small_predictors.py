"""Work folders of small models with random weights, for the tests of predictions."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from mmengine.registry import MODELS, DefaultScope
from small_runs import small_config

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ('warm_disk', 'cool_disk', 'warm_square', 'cool_square', 'ring', 'star', 'warm_stripes', 'cool_stripes',
           'warm_checks', 'cool_checks')


def small_run(task: str, folder: Path, data_root: Path = Path('no_data'), **options: Any) -> Path:
    """Write config and checkpoint of a model as a training leaves them; ``options`` as those of ``small_config``."""
    folder.mkdir(parents=True)
    cfg = small_config(task, data_root, 10, **options)
    cfg.pop('custom_imports')
    cfg.pop('custom_hooks')
    cfg.experiment_name = f'{folder.parent.name}-{folder.name}'
    cfg.log_level = 'ERROR'
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    meta = dict(cfg.test_dataloader.dataset.metainfo)
    cfg.dump(folder / 'config.py')
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=meta)), folder / 'iter_10.pth')
    return folder


def tool(name: str) -> ModuleType:
    """A script of tools/, as a module."""
    spec = importlib.util.spec_from_file_location(f'knet_tool_{name}', ROOT / 'tools' / f'{name}.py')
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
