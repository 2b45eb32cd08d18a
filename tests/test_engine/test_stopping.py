"""Ctrl-C ends a training with a checkpoint from which it continues as if nothing had happened."""

import json
import signal
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import FlexibleRunner, Runner
from tiny_runs import tiny_config

from knet_plugin.engine.resuming import find_checkpoint
from knet_plugin.engine.runner import make_work_folder, resume_command, run_console
from knet_plugin.engine.seeding import seed_by_position
from knet_plugin.engine.stopping import RunStopped

STOP = dict(type='knet_plugin.StopHook')


@HOOKS.register_module()
class Presser(Hook):
    """Presses Ctrl-C before some iterations of the training or validation."""

    def __init__(self, at: list[int], mode: str = 'train', signum: int = signal.SIGINT) -> None:
        self.at = at
        self.mode = mode
        self.signum = signum

    def _before_iter(self, runner, batch_idx, data_batch=None, mode='train') -> None:
        for each in self.at:
            if mode == self.mode and runner.iter + 1 == each:
                signal.raise_signal(self.signum)  # for this thread: two of them never become one


@HOOKS.register_module()
class Failer(Hook):
    """Ends a training with an error."""

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        raise ArithmeticError


@HOOKS.register_module()
class LossWriter(Hook):
    """Writes the data and the loss of every iteration."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        line = [runner.iter, [x.item() for x in data_batch['x']], outputs['loss'].item()]
        with Path(runner.work_dir, 'losses').open('a') as file:
            file.write(json.dumps(line) + '\n')


def config(work_dir: Path, *presser: int, by_epoch: bool = True, **options) -> Config:
    cfg = tiny_config(work_dir, 4, custom_hooks=[STOP, dict(type='LossWriter')], randomness=dict(seed=3))
    cfg.train_dataloader = dict(dataset=dict(type='Points'), batch_size=1,
                                sampler=dict(type='DefaultSampler', shuffle=True))
    if not by_epoch:
        cfg.train_cfg = dict(by_epoch=False, max_iters=16)
        cfg.train_dataloader.sampler.type = 'InfiniteSampler'
        cfg.default_hooks.checkpoint.update(by_epoch=False, interval=5)
    if presser:
        cfg.custom_hooks.insert(0, dict(type='Presser', at=list(presser), **options))
    seed_by_position(cfg)
    return cfg


def resumed(cfg: Config) -> Config:
    cfg.resume = True
    cfg.load_from, _ = find_checkpoint(cfg.work_dir)
    return cfg


def losses(work_dir: Path) -> list:
    return [json.loads(line) for line in (work_dir / 'losses').read_text().splitlines()]


@pytest.fixture(autouse=True)
def signals_are_restored():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(('by_epoch', 'workers'), [(True, 0), (True, 2), (False, 0)])
def test_a_stopped_run_continues_with_the_same_losses(by_epoch, workers, tmp_path):
    Runner.from_cfg(config(tmp_path / 'whole', by_epoch=by_epoch)).train()
    for presses in ((6,), (7,), ()):  # twice in one epoch of 4 iterations
        cfg = config(tmp_path / 'cut', *presses, by_epoch=by_epoch)
        cfg.train_dataloader.update(num_workers=workers, persistent_workers=workers > 0)
        runner = Runner.from_cfg(resumed(cfg) if presses != (6,) else cfg)
        if presses:
            with pytest.raises(RunStopped, match='SIGINT'):
                runner.train()
            assert find_checkpoint(tmp_path / 'cut') == (f'{tmp_path}/cut/iter_{presses[0]}.pth', [])
        else:
            runner.train()
    assert losses(tmp_path / 'cut') == losses(tmp_path / 'whole')


def test_a_checkpoint_of_the_schedule_is_not_written_twice(tmp_path):
    with pytest.raises(RunStopped, match=r'iter_5\.pth'):
        Runner.from_cfg(config(tmp_path / 'run', 5, by_epoch=False)).train()
    assert [path.name for path in (tmp_path / 'run').glob('*.pth')] == ['iter_5.pth']


@pytest.mark.parametrize(('by_epoch', 'averaged'), [(True, False), (False, False), (False, True)])
def test_stopped_during_a_validation(by_epoch, averaged, tmp_path):
    """With EMAHook, the model has the averaged weights then, but the training continues from its own."""
    average = [dict(type='EMAHook', momentum=0.1)] if averaged else []
    whole = config(tmp_path / 'whole', by_epoch=by_epoch)
    whole.custom_hooks += average
    Runner.from_cfg(whole).train()
    for presses in ((9,), ()):
        cfg = config(tmp_path / 'cut', *presses, by_epoch=by_epoch, **dict(mode='val') if presses else {})
        cfg.custom_hooks += average
        cfg.train_cfg.val_interval = 2 if by_epoch else 8
        cfg.update(val_dataloader=cfg.test_dataloader, val_evaluator=cfg.test_evaluator, val_cfg=dict())
        runner = Runner.from_cfg(cfg if presses else resumed(cfg))
        if presses:
            with pytest.raises(RunStopped, match=r'iter_8\.pth'):
                runner.train()
        else:
            runner.train()
    assert losses(tmp_path / 'cut') == losses(tmp_path / 'whole')


def test_the_second_one_ends_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt) as caught:
        Runner.from_cfg(config(tmp_path / 'run', 2, 2)).train()
    assert caught.type is KeyboardInterrupt and not list((tmp_path / 'run').glob('*.pth'))


def test_a_signal_after_a_failed_run_acts_as_usual(tmp_path):
    cfg = config(tmp_path / 'run')
    cfg.custom_hooks.append(dict(type='Failer'))
    with pytest.raises(ArithmeticError):
        Runner.from_cfg(cfg).train()
    with pytest.raises(KeyboardInterrupt) as caught:
        signal.raise_signal(signal.SIGINT)
    assert caught.type is KeyboardInterrupt


def test_a_terminated_run_has_a_checkpoint(tmp_path):
    with pytest.raises(RunStopped, match='SIGTERM') as caught:
        Runner.from_cfg(config(tmp_path / 'run', 3, signum=signal.SIGTERM)).train()
    assert caught.value.signum == signal.SIGTERM and Path(caught.value.checkpoint).is_file()


def test_flexible_runner(tmp_path):
    with pytest.raises(RunStopped, match=r'iter_3\.pth'):
        FlexibleRunner.from_cfg(config(tmp_path / 'run', 3)).train()


def test_without_a_checkpoint_hook(tmp_path):
    cfg = config(tmp_path / 'run', 3)
    cfg.default_hooks.checkpoint = None
    with pytest.raises(RunStopped, match=r'iter_3\.pth'):
        Runner.from_cfg(cfg).train()


@pytest.mark.parametrize('error', [RunStopped(signal.SIGINT, 'iter_3.pth'), KeyboardInterrupt()])
def test_exit_status_and_line_to_resume(error, capsys, monkeypatch):
    monkeypatch.setattr('sys.argv', ['tools/train.py', 'a b.py'])
    with pytest.raises(SystemExit) as caught, run_console():
        raise error
    assert caught.value.code == 130
    assert ("knet train 'a b.py' --resume" in capsys.readouterr().err) == isinstance(error, RunStopped)


@pytest.mark.parametrize(('words', 'expected'), [
    ('a.py', 'a.py'), ('a.py --resume', 'a.py'), ('--resume x.pth a.py --amp', 'a.py --amp'),
    ('a.py --resume=x.pth --launcher none', 'a.py'), ('--resume --amp a.py', '--amp a.py')])
def test_resume_command(words, expected):
    assert resume_command(['train.py', *words.split()]) == f'knet train {expected} --resume'


def test_resume_command_of_several_processes(monkeypatch):
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '4')
    assert resume_command(['train.py', 'a.py', '--launcher', 'pytorch']) == \
        'knet train a.py --launcher pytorch --gpus 4 --resume'


def test_a_work_folder_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(SystemExit, match='work folder .*file'):
        make_work_folder(str(tmp_path / 'file/run'))
    make_work_folder(str(tmp_path / 'a/b'))
    assert (tmp_path / 'a/b').is_dir()
