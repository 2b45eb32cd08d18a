"""Checkpoints are written completely or not at all, and replace others only then."""

import errno
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch
from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.runner import FlexibleRunner, Runner
from tiny_runs import tiny_runner

from knet_plugin.engine import CheckpointHook
from knet_plugin.engine.checkpoint_hook import WholeFileBackend

RUNNERS = pytest.mark.parametrize('kind', [Runner, FlexibleRunner])


def names(folder: Path, pattern: str = '*') -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


@pytest.fixture
def full_disk(monkeypatch):
    """Call it, and nothing can be written any more."""
    def fail(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return lambda: monkeypatch.setattr(os, 'fsync', fail)


def test_file_is_written_and_replaced(tmp_path):
    path = tmp_path / 'new' / 'file.pth'
    WholeFileBackend().put(b'one', path)
    WholeFileBackend().put(b'another', str(path))
    assert path.read_bytes() == b'another'
    assert names(path.parent) == ['file.pth']


def test_a_full_disk_leaves_the_old_file(tmp_path, full_disk):
    path = tmp_path / 'file.pth'
    WholeFileBackend().put(b'one', path)
    full_disk()
    with pytest.raises(OSError, match=r'file\.pth \(2\.0 MiB\).*No space') as caught:
        WholeFileBackend().put(bytes(2 << 20), path)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == b'one'
    assert names(tmp_path) == ['file.pth']


@RUNNERS
def test_old_checkpoints_are_removed_after_the_new_one_is_there(tmp_path, monkeypatch, kind):
    seen = []
    remove = LocalBackend.remove

    def watch(backend: LocalBackend, path: str) -> None:
        seen.append((Path(path).name, names(tmp_path / 'run', '*.pth')))
        remove(backend, path)

    monkeypatch.setattr(LocalBackend, 'remove', watch)
    tiny_runner(kind, tmp_path / 'run', 3, checkpoint=dict(max_keep_ckpts=1)).train()
    assert seen == [('epoch_1.pth', ['epoch_1.pth', 'epoch_2.pth']), ('epoch_2.pth', ['epoch_2.pth', 'epoch_3.pth'])]
    assert names(tmp_path / 'run', '*.pth') == ['epoch_3.pth']
    assert type(get_file_backend('')) is LocalBackend


@RUNNERS
def test_kill_9_while_a_checkpoint_is_written(tmp_path, kind):
    work_dir = tmp_path / 'run'

    def cut_and_kill(file: int) -> None:
        os.ftruncate(file, os.fstat(file).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    def train() -> None:
        torch.set_num_threads(1)
        tiny_runner(kind, work_dir, 1, checkpoint=dict(max_keep_ckpts=1)).train()
        os.fsync = cut_and_kill
        tiny_runner(kind, work_dir, 2, work_dir / 'epoch_1.pth', checkpoint=dict(max_keep_ckpts=1)).train()

    process = multiprocessing.get_context('fork').Process(target=train)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert names(work_dir, 'epoch*') == ['epoch_1.pth']
    assert torch.load(work_dir / 'epoch_1.pth', weights_only=False)['meta']['epoch'] == 1


def test_the_best_model_outlives_a_failure(tmp_path, full_disk):
    work_dir = tmp_path / 'run'
    runner = tiny_runner(Runner, work_dir, checkpoint=dict(save_best='score', rule='greater'))
    runner.train()
    hook, = (hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
    hook.after_val_epoch(runner, dict(score=1))
    runner.train_loop._epoch = 2
    hook.after_val_epoch(runner, dict(score=2))
    hook.after_val_epoch(runner, dict(score=3))  # under the same name
    assert names(work_dir, 'best*') == ['best_score_epoch_2.pth']
    runner.train_loop._epoch = 3
    full_disk()
    with pytest.raises(OSError, match=r'best_score_epoch_3\.pth'):
        hook.after_val_epoch(runner, dict(score=4))
    assert names(work_dir, 'best*') == ['best_score_epoch_2.pth']


class Storage(LocalBackend):
    """Notes what is written."""

    written: list[str] = []

    def put(self, obj: bytes, filepath: str | Path) -> None:
        self.written.append(Path(filepath).name)
        super().put(obj, filepath)


def test_other_storage_is_left_alone(tmp_path):
    register_backend('tests_storage', Storage, force=True)
    tiny_runner(Runner, tmp_path / 'run', checkpoint=dict(backend_args=dict(backend='tests_storage'))).train()
    assert Storage.written == ['epoch_1.pth']
