"""Trainings that are killed, or find the disk full, and go on as if nothing had happened."""

import resource
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest
import small_runs
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from small_runs import losses, run, small_config, small_data

pytestmark = pytest.mark.slow

KILLED = 128 + 9
STATES = ('state_dict', 'optimizer', 'param_schedulers', 'ema_state_dict')


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    return small_data(tmp_path_factory.mktemp('data'), num_train=40)


@pytest.fixture
def small_disk(tmp_path):
    """Call it with a number of MiB to get a folder on a disk of that size, or to give it another size."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    mounted = []

    def resize(size: float) -> Path:
        options = [f'{"remount," * len(mounted)}size={size * 1024:.0f}k', 'tmpfs', str(folder)]
        done = subprocess.run(['mount', '-t', 'tmpfs', '-o', *options], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f'disks cannot be mounted here: {done.stderr.strip()}')
        mounted[:] = [folder]
        return folder

    if not shutil.which('mount'):
        pytest.skip('disks cannot be mounted here: there is no mount')
    yield resize
    if mounted:
        subprocess.run(['umount', folder], check=True)


def checkpoint_size(cfg: Config) -> float:
    """What a checkpoint takes, in MiB: the weights, and two of Adam's numbers for each that is trained."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    return 4 * (sum(each.numel() for each in model.state_dict().values()) + 2 * trained) / 2**20


def config_by_chance(task: str, data: Path) -> Config:
    """A config in which as much as possible is drawn by chance, where the images are loaded and in the model."""
    cfg = small_config(task, data, 24, default_hooks__checkpoint__interval=10, train_dataloader__num_workers=2,
                       train_dataloader__persistent_workers=True)
    assert dict(type='RandomFlip', prob=0.5) in cfg.train_dataloader.dataset.pipeline
    head = cfg.model.decode_head if task == 'semantic' else cfg.model.panoptic_head
    head.kernel_update_head.interaction.dropout = 0.1
    if task == 'semantic':
        cfg.train_cfg.val_interval = 10
    if task == 'instance':
        head.loss = dict(num_points=64)
        cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
        cfg.custom_hooks.append(dict(type='EMAHook', momentum=0.1))
    if task == 'panoptic':  # an epoch has 10 iterations
        cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)
    return cfg


def with_hook(cfg: Config, **hook) -> Config:
    changed = cfg.copy()
    changed.custom_hooks = [*cfg.custom_hooks, hook]
    return changed


def assert_same_states(checkpoint: Path, other: Path) -> None:
    """Compare all that a training goes on from, bit by bit."""
    first, second = (torch.load(path, weights_only=False) for path in (checkpoint, other))
    assert first.keys() == second.keys()
    for name in STATES:
        assert_same(first.get(name), second.get(name))


def assert_same(value, other) -> None:
    assert type(value) is type(other)
    if isinstance(value, dict):
        assert value.keys() == other.keys()
        for key in value:
            assert_same(value[key], other[key])
    elif isinstance(value, list | tuple):
        assert len(value) == len(other)
        for each, another in zip(value, other, strict=True):
            assert_same(each, another)
    elif isinstance(value, torch.Tensor):
        assert torch.equal(value, other)
    else:
        assert value == other


@pytest.mark.parametrize('task', small_runs.TASKS)
def test_killed_run_goes_on_with_the_same_losses(task, data, tmp_path):
    cfg = config_by_chance(task, data)
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    run(cfg, whole)
    expected = losses(whole)
    assert sorted(expected) == list(range(24))

    done = run(with_hook(cfg, type='mmengine.Killer', after=17), cut, check=False)
    assert done.returncode == KILLED
    assert [path.name for path in cut.glob('*.pth')] == ['iter_10.pth']
    assert max(losses(cut)) == 15  # the killer came before the recorder

    done = run(with_hook(cfg, type='mmengine.Killer', after=20, saving=True), cut, '--resume', check=False)
    assert done.returncode == KILLED
    assert f'resuming from {cut}/iter_10.pth' in done.stdout + done.stderr
    assert [path.name for path in cut.glob('*.pth')] == ['iter_10.pth']
    assert (cut / '.iter_20.pth.draft').is_file()
    assert max(losses(cut)) == 18
    assert losses(cut).items() <= expected.items()

    done = run(cfg, cut, '--resume')
    assert f'resuming from {cut}/iter_10.pth' in done.stdout + done.stderr
    assert losses(cut) == expected
    assert not list(cut.glob('.*.draft'))
    for name in ('iter_20.pth', 'iter_24.pth'):
        assert_same_states(whole / name, cut / name)


def test_killed_epoch_is_repeated(data, tmp_path):
    cfg = small_config('semantic', data, 0, train_dataloader__num_workers=2, train_dataloader__persistent_workers=True,
                       train_dataloader__sampler__type='DefaultSampler')
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=3)  # of 10 iterations
    cfg.default_hooks.checkpoint.update(by_epoch=True, interval=1, max_keep_ckpts=1)
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    run(cfg, whole)

    done = run(with_hook(cfg, type='mmengine.Killer', after=17), cut, check=False)
    assert done.returncode == KILLED
    run(cfg, cut, '--resume')
    assert losses(cut) == losses(whole)
    assert [path.name for path in cut.glob('epoch_*.pth')] == ['epoch_3.pth']
    assert_same_states(whole / 'epoch_3.pth', cut / 'epoch_3.pth')


def test_full_disk(data, small_disk):
    cfg = small_config('instance', data, 20, default_hooks__checkpoint__interval=10,
                       default_hooks__checkpoint__max_keep_ckpts=1)
    size = checkpoint_size(cfg)
    work_dir = small_disk(1.5 * size) / 'run'
    done = run(cfg, work_dir, check=False)
    assert (work_dir / 'iter_10.pth').stat().st_size == pytest.approx(size * 2**20, rel=0.1)
    assert_says_why(done, work_dir / 'iter_20.pth', 'No space left on device')
    assert 'MiB are free' in done.stderr

    small_disk(4 * size)
    run(cfg, work_dir, '--resume')
    assert [path.name for path in work_dir.glob('iter_*.pth')] == ['iter_20.pth']


def test_file_that_may_not_grow(data, tmp_path):
    cfg = small_config('semantic', data, 10, default_hooks__checkpoint__interval=5)
    work_dir = tmp_path / 'run'
    run(Config(dict(cfg, train_cfg=dict(cfg.train_cfg, max_iters=5))), work_dir)
    size = (work_dir / 'iter_5.pth').stat().st_size
    done = run(cfg, work_dir, '--resume', check=False,
               before=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size // 2, size // 2)))
    assert_says_why(done, work_dir / 'iter_10.pth', 'File too large')
    assert max(losses(work_dir)) == 8

    run(cfg, work_dir, '--resume')
    assert max(losses(work_dir)) == 9


def assert_says_why(done: 'subprocess.CompletedProcess[str]', path: Path, reason: str) -> None:
    """A run stopped because a checkpoint could not be written, and left the one before."""
    assert done.returncode == 1
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith('OSError')
    assert f'{path} (' in message
    assert reason in message
    assert 'saved before are as they were' in message
    assert not path.exists()
    assert not list(path.parent.glob('.*.draft'))
    assert len(list(path.parent.glob('iter_*.pth'))) == 1
