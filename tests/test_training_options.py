"""The lines of docs/recipe.md under "Training options", in trainings of two iterations."""

import json
import re
from pathlib import Path

import own_data
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook

from knet_plugin.cli import resolve_config
from knet_plugin.datasets.description import DataDescription
from knet_plugin.datasets.prepare import Options, find_sources, prepare
from knet_plugin.engine.own_run import OwnRun
from knet_plugin.engine.runner import add_run_parts, build_runner
from knet_plugin.engine.safe_loading import safe_loading
from knet_plugin.engine.seeding import seed_by_position

PAGE = Path(__file__).resolve().parents[1] / 'docs/recipe.md'
SECTION = PAGE.read_text().partition('\n## Training options\n')[2].partition('\n## ')[0]
CALL, PIPELINE, AVERAGE, RATES = re.findall(r'```python\n(.*?)```', SECTION, flags=re.DOTALL)
ARGUMENTS, = re.findall(r'\.\.\., (.*)\)', CALL)
NARROW = dict(channels=8, norm_cfg=dict(type='GN', num_groups=2))


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    """Prepared pictures of cats and dogs on a floor."""
    folder = tmp_path_factory.mktemp('options')
    pictures = own_data.make_pictures(6)
    images = own_data.write_images(folder / 'images', pictures)
    maps = own_data.write_panoptic(folder / 'panoptic.json', pictures)
    prepare(find_sources(images, maps), folder / 'zoo', Options((), (), (255,), 'auto'))
    return folder / 'zoo'


def own_config(data: Path, task: str, folder: Path, lines: str = '', arguments: str = '') -> Config:
    """Config of two iterations, as ``knet train --data`` writes it, with more lines and arguments of data_config."""
    base = resolve_config(f'recipe/knet-s3_effnet-lite0_{task}')
    text = OwnRun(DataDescription.read(data), task, base, None, 64, 2, None, 2, 0).text()
    path = folder / 'run.py'
    path.write_text(text.replace('num_workers=0)', f'num_workers=0, {arguments})') + lines)
    return narrow(Config.fromfile(path), task, folder)


def narrow(cfg: Config, task: str, folder: Path) -> Config:
    """Make the model small and quiet, and name the folder of the run."""
    cfg.model.neck.out_channels = 8
    cfg.train_cfg.val_interval = 2
    if task == 'semantic':
        cfg.model.decode_head.kernel_generate_head.update(NARROW, in_channels=[8] * 4)
    else:
        cfg.model.panoptic_head.num_stages = 1
        cfg.model.panoptic_head.kernel_head.update(NARROW, num_kernels=5)
    cfg.merge_from_dict(dict(work_dir=str(folder / 'run'), log_level='ERROR', experiment_name=folder.name,
                             randomness=dict(seed=0)))
    return cfg


def train(cfg: Config):
    """Do what ``tools/train.py`` does, and return the runner."""
    torch.set_num_threads(1)
    add_run_parts(cfg)
    seed_by_position(cfg)
    with safe_loading():
        runner = build_runner(cfg)
        runner.train()
    return runner


@pytest.mark.parametrize('task', ['panoptic', 'instance'])
def test_own_data(task, data, tmp_path):
    """All options at once; the best checkpoint holds the average, and a test of it measures what was validated."""
    cfg = own_config(data, task, tmp_path, AVERAGE, ARGUMENTS)
    assert cfg.train_dataloader.dataset.type == 'MultiImageMixDataset'
    runner = train(cfg)
    average = next(hook for hook in runner.hooks if isinstance(hook, EMAHook)).ema_model.module.state_dict()
    best, = Path(cfg.work_dir).glob('best_*.pth')
    weights = torch.load(best, weights_only=False)['state_dict']
    assert all(torch.equal(value, average[name]) for name, value in weights.items())
    assert not all(torch.equal(value, average[name]) for name, value in runner.model.state_dict().items())
    validated = json.loads(Path(cfg.work_dir, 'validations.jsonl').read_text().splitlines()[-1])
    cfg.load_from = str(best)
    with safe_loading():
        measured = build_runner(cfg).test()
    assert measured and all(validated[name] == pytest.approx(value, nan_ok=True) for name, value in measured.items())


def test_own_data_without_objects(data, tmp_path):
    runner = train(own_config(data, 'semantic', tmp_path, AVERAGE, ARGUMENTS.replace(', copy_paste=True', '')))
    assert runner.iter == 2
    with pytest.raises(ValueError, match='copy_paste=True.*semantic'):
        own_config(data, 'semantic', tmp_path, arguments=ARGUMENTS)


@pytest.mark.parametrize('task', ['panoptic', 'instance'])
def test_a_config_of_mmdets_kind(task, data, tmp_path):
    base = tmp_path / 'base.py'
    base.write_text(OwnRun(DataDescription.read(data), task, resolve_config(f'recipe/knet-s3_effnet-lite0_{task}'),
                           None, 64, 2, None, 2, 0).text())
    lines = PIPELINE.replace('(1024, 1024)', '(64, 64)')
    if task == 'panoptic':
        loading, = re.findall(r"`(dict\(type='knet_plugin.LoadPanopticAnnotations'\))`", SECTION)
        lines = re.sub(r"dict\(type='LoadAnnotations'.*\),", f'{loading},', lines)
    (tmp_path / 'run.py').write_text(f"_base_ = './base.py'\n{lines}")
    cfg = narrow(Config.fromfile(tmp_path / 'run.py'), task, tmp_path)
    cfg.merge_from_dict(dict(val_cfg=None, val_dataloader=None, val_evaluator=None))
    assert train(cfg).iter == 2


def test_rates_of_parts(data, tmp_path):
    cfg = own_config(data, 'instance', tmp_path)
    (tmp_path / 'rates.py').write_text(f"_base_ = './run.py'\n{RATES}")
    cfg = narrow(Config.fromfile(tmp_path / 'rates.py'), 'instance', tmp_path)
    cfg.model.panoptic_head.num_stages = 3
    runner = build_runner(cfg)
    wrapper = runner.build_optim_wrapper(cfg.optim_wrapper)
    rates = {id(parameter): group['lr'] for group in wrapper.param_groups for parameter in group['params']}
    found = {name: rates[id(parameter)] / cfg.optim_wrapper.optimizer.lr
             for name, parameter in runner.model.named_parameters() if id(parameter) in rates}
    for name, rate in found.items():
        expected = 0.1 if name.startswith('backbone') else 1
        if 'kernel_update_head' in name:
            expected = 0.4 if 'kernel_update_head.2' in name else 0.2
        assert rate == pytest.approx(expected), name
