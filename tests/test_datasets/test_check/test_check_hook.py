"""The hook stops a run before mmdet reads its data."""

import logging

import pytest
import torch
from check_data_files import edit, instance_config, write_instances
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import FlexibleRunner, Runner

from knet_plugin import registry
from knet_plugin.datasets.check import DataCheckHook, DataError, hook


@MODELS.register_module()
class CheckedModel(BaseModel):
    """A model with the arguments that the check reads."""

    def __init__(self, panoptic_head=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs, data_samples, mode='loss'):
        raise AssertionError('the model ran')


@DATASETS.register_module()
class WatchedDataset(CocoDataset):
    """Notes when it is read."""

    read = False

    def full_init(self):
        type(self).read = True
        raise InterruptedError('the data is read')


@pytest.fixture(autouse=True)
def scope():
    """Runners change the default scope for all that comes later."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    write_instances(tmp_path / 'data')
    monkeypatch.setattr(WatchedDataset, 'read', False)
    cfg = instance_config(tmp_path / 'data', 'mmengine.WatchedDataset', 'mmdet.CocoMetric')
    cfg.model.type = 'mmengine.CheckedModel'
    for name in ('train', 'val'):
        cfg[f'{name}_dataloader'].update(num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
    cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
    options = dict(
        work_dir=str(tmp_path / 'run'), train_cfg=dict(by_epoch=True, max_epochs=1), val_cfg=dict(), test_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)), custom_hooks=[dict(type='knet_plugin.DataCheckHook')],
        experiment_name=tmp_path.name, log_level='WARNING', env_cfg=dict())
    return Config(dict(cfg.to_dict(), **options))


def break_classes(cfg, *names):
    for name in names:
        cfg[f'{name}_dataloader'].dataset.metainfo.classes = ('cat', 'dogs')


@pytest.mark.parametrize('kind', [Runner, FlexibleRunner])
def test_a_training_stops_before_the_data_is_read(cfg, kind):
    break_classes(cfg, 'train')
    runner = kind.from_cfg(cfg)
    with pytest.raises(DataError, match='train.json.*dogs'):
        runner.train()
    assert not WatchedDataset.read


def test_good_data_is_read(cfg):
    runner = Runner.from_cfg(cfg)
    with pytest.raises(InterruptedError):
        runner.train()
    assert WatchedDataset.read


@pytest.mark.parametrize(('broken', 'stops'), [
    ('train', dict(train=True, val=False, test=False)), ('val', dict(train=True, val=True, test=False)),
    ('test', dict(train=False, val=False, test=True))])
def test_only_the_data_that_a_run_needs_is_checked(cfg, broken, stops):
    cfg[f'{broken}_dataloader'].dataset.ann_file = 'none.json'
    runner = Runner.from_cfg(cfg)
    for method, stopped in stops.items():
        with pytest.raises(DataError if stopped else InterruptedError):
            getattr(runner, method)()


def test_warnings_are_logged_once(cfg, tmp_path, caplog):
    edit(tmp_path / 'data', lambda data: data.update(annotations=[
        dict(data['annotations'][0], id=i + 1) for i in range(50)]), 'train')
    cfg.custom_hooks *= 2
    runner = Runner.from_cfg(cfg)
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    runner.logger.addHandler(handler)
    with pytest.raises(InterruptedError):
        runner.train()
    assert sum('50 objects, 3 kernels' in line for line in lines) == 1


def test_every_process_stops(cfg, monkeypatch):
    """A process that is not the first reads nothing, and gets the error of the first."""
    runner = Runner.from_cfg(cfg)
    monkeypatch.setattr(hook, 'is_main_process', lambda: False)
    monkeypatch.setattr(hook, 'broadcast_object_list', lambda data: data.__setitem__(0, 'error of process 0'))
    with pytest.raises(DataError, match='error of process 0'):
        runner.train()


def test_outside_of_a_runner_it_does_nothing():
    assert isinstance(registry.HOOKS.build(dict(type='knet_plugin.DataCheckHook')), DataCheckHook)
    with pytest.raises(ValueError, match='limit must be positive, got 0'):
        DataCheckHook(limit=0)
