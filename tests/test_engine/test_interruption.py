"""Trainings that are killed continue with the losses of an uninterrupted run."""

import multiprocessing
import signal
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from small_runs import TASKS, losses, run, small_config, small_data

from knet_plugin.engine.resuming import find_checkpoint
from knet_plugin.engine.runner import add_run_parts, build_runner
from knet_plugin.engine.safe_loading import safe_loading
from knet_plugin.engine.seeding import seed_by_position

KILLED = (-9, 128 + 9)  # of this process, or as the command line reports it
STATES = ('state_dict', 'optimizer', 'ema_state_dict')


def random_config(task: str, data: Path) -> Config:
    """A config with random numbers in data loading and in the model."""
    cfg = small_config(task, data, 24, default_hooks__checkpoint__interval=10, train_dataloader__num_workers=2,
                       train_dataloader__persistent_workers=True)
    assert dict(type='RandomFlip', prob=0.5) in cfg.train_dataloader.dataset.pipeline
    head = cfg.model.decode_head if task == 'semantic' else cfg.model.panoptic_head
    head.kernel_update_head.interaction.dropout = 0.1
    if task == 'semantic':
        cfg.train_cfg.val_interval = 10
    if task == 'instance':
        cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
        cfg.custom_hooks.append(dict(type='EMAHook', momentum=0.1))
    if task == 'panoptic':  # an epoch has 10 iterations
        cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)
    return cfg


def with_killer(cfg: Config, **options) -> Config:
    changed = cfg.copy()
    changed.custom_hooks = [*cfg.custom_hooks, dict(type='mmengine.Killer', **options)]
    return changed


def assert_same_states(checkpoint: Path, other: Path) -> None:
    """Compare everything that a training continues from, bit by bit."""
    first, second = (torch.load(path, weights_only=False) for path in (checkpoint, other))
    assert first.keys() == second.keys()
    assert first['param_schedulers'] == second['param_schedulers']
    for name in STATES:
        torch.testing.assert_close(first.get(name), second.get(name), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize('task', TASKS)
def test_killed_run_continues_with_the_same_losses(task, tmp_path):
    """Killed after an iteration, and again while it writes a checkpoint."""
    cfg = random_config(task, small_data(tmp_path / 'data', num_train=40))
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    run(cfg, whole)
    expected = losses(whole)
    assert sorted(expected) == list(range(24))

    assert run(with_killer(cfg, after=17), cut, check=False).returncode in KILLED
    assert [path.name for path in cut.glob('iter_*.pth')] == ['iter_10.pth']
    assert max(losses(cut)) == 15  # the killer comes before the recorder

    done = run(with_killer(cfg, after=20, saving=True), cut, '--resume', check=False)
    assert done.returncode in KILLED
    assert f'{cut}/iter_10.pth' in done.stdout + done.stderr
    assert [path.name for path in cut.glob('iter_*.pth')] == ['iter_10.pth']
    assert max(losses(cut)) == 18

    run(cfg, cut, '--resume')
    assert losses(cut) == expected
    for name in ('iter_20.pth', 'iter_24.pth'):
        assert_same_states(whole / name, cut / name)


@pytest.mark.slow
def test_killed_epoch_is_repeated(tmp_path):
    cfg = small_config('semantic', small_data(tmp_path / 'data', num_train=40), 0, train_dataloader__num_workers=2,
                       train_dataloader__persistent_workers=True, train_dataloader__sampler__type='DefaultSampler')
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=3)  # of 10 iterations
    cfg.default_hooks.checkpoint.update(by_epoch=True, interval=1, max_keep_ckpts=1)
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    run(cfg, whole)
    assert run(with_killer(cfg, after=17), cut, check=False).returncode in KILLED
    run(cfg, cut, '--resume')
    assert losses(cut) == losses(whole)
    assert [path.name for path in cut.glob('epoch_*.pth')] == ['epoch_3.pth']
    assert_same_states(whole / 'epoch_3.pth', cut / 'epoch_3.pth')


def train(cfg: Config, work_dir: Path) -> None:
    """Do what ``tools/train.py --resume`` does."""
    torch.set_num_threads(1)
    cfg.work_dir, cfg.log_level = str(work_dir), 'ERROR'
    add_run_parts(cfg)
    seed_by_position(cfg)
    cfg.load_from, _ = find_checkpoint(work_dir)
    cfg.resume = cfg.load_from is not None
    with safe_loading():
        build_runner(cfg).train()


def exit_code(*arguments) -> int:
    """Call ``train`` in a fork of this process."""
    process = multiprocessing.get_context('fork').Process(target=train, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def test_killed_training_continues_with_the_same_ten_losses(tmp_path):
    """The quick version: a semantic model on images of 64 x 64, without new interpreters."""
    cfg = random_config('semantic', small_data(tmp_path / 'data'))
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False, batch_size=2)
    cfg.train_cfg.update(max_iters=14, val_interval=100)
    cfg.default_hooks.checkpoint.interval = 4
    cfg.model.data_preprocessor.size = (64, 64)
    for transform in cfg.train_dataloader.dataset.pipeline:
        if transform.type == 'Resize':
            transform.scale = (64, 64)
    assert exit_code(cfg, tmp_path / 'whole') == 0
    assert exit_code(with_killer(cfg, after=6), tmp_path / 'cut') == -signal.SIGKILL
    assert max(losses(tmp_path / 'cut')) == 4
    assert exit_code(cfg, tmp_path / 'cut') == 0
    assert sorted(losses(tmp_path / 'whole')) == list(range(14))
    assert losses(tmp_path / 'cut') == losses(tmp_path / 'whole')
