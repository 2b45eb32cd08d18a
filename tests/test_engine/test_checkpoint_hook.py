"""Checkpoints are written as a whole or not at all, and replace others only then."""

import errno
import os
import stat
from pathlib import Path

import pytest
import torch
from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.model import BaseModel
from mmengine.runner import FlexibleRunner, Runner
from torch.utils.data import Dataset

from knet_plugin.engine.checkpoint_hook import CheckpointHook, WholeFileBackend


class Line(BaseModel):
    """One weight."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, x, mode='loss'):
        return dict(loss=self.layer(torch.stack(x)).square().mean()) if mode == 'loss' else x


class Points(Dataset):
    """Four numbers."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict:
        return dict(x=torch.tensor([float(index)]))


def make_runner(work_dir: Path, epochs: int = 3, kind: type = Runner, resume: str | None = None,
                **hook) -> Runner | FlexibleRunner:
    loader = dict(dataset=Points(), batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
    return kind(Line(), work_dir=str(work_dir), train_dataloader=loader,
                train_cfg=dict(by_epoch=True, max_epochs=epochs), resume=resume is not None,
                load_from=resume and str(work_dir / resume),
                optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
                default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, **hook)),
                experiment_name=f'{work_dir.parent.name}_{work_dir.name}')


def checkpoints(folder: Path) -> list[str]:
    return names(folder, '*.pth*')


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


def test_old_file_is_there_until_the_new_one_is_whole(tmp_path, monkeypatch):
    path = tmp_path / 'file.pth'
    WholeFileBackend().put(b'one', path)
    seen = []
    monkeypatch.setattr(os, 'fsync', lambda file: seen.append(
        (stat.S_ISDIR(os.fstat(file).st_mode), path.read_bytes())))
    WholeFileBackend().put(b'another', path)
    assert seen == [(False, b'one'), (True, b'another')]  # the draft, then the folder, where it has its new name


def test_folder_that_cannot_be_synchronised(tmp_path, monkeypatch):
    def refuse(file: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, 'fsync', refuse)
    WholeFileBackend().put(b'one', tmp_path / 'file.pth')
    assert (tmp_path / 'file.pth').read_bytes() == b'one'


def test_full_disk_is_explained(tmp_path, full_disk):
    path = tmp_path / 'file.pth'
    WholeFileBackend().put(b'one', path)
    full_disk()
    with pytest.raises(OSError, match=r'file\.pth \(2\.0 MiB\) cannot be written: No space .* MiB are free') as caught:
        WholeFileBackend().put(bytes(2 << 20), path)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == b'one'
    assert names(tmp_path) == ['file.pth']


def test_folder_that_cannot_be_made_is_explained(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(OSError, match=r'epoch_1\.pth .* cannot be written'):
        WholeFileBackend().put(b'', tmp_path / 'file' / 'epoch_1.pth')


def test_runner_uses_the_hook_and_removes_old_checkpoints(tmp_path):
    runner = make_runner(tmp_path / 'run', max_keep_ckpts=1)
    assert any(type(hook) is CheckpointHook for hook in runner.hooks)
    runner.train()
    assert checkpoints(tmp_path / 'run') == ['epoch_3.pth']


@pytest.mark.parametrize('kind', [Runner, FlexibleRunner])
def test_replaced_checkpoint_outlives_a_failure(tmp_path, full_disk, kind):
    work_dir = tmp_path / 'run'
    make_runner(work_dir, 1, kind, max_keep_ckpts=1).train()
    runner = make_runner(work_dir, 2, kind, 'epoch_1.pth', max_keep_ckpts=1)
    full_disk()
    with pytest.raises(OSError, match=r'epoch_2\.pth'):
        runner.train()
    assert checkpoints(work_dir) == ['epoch_1.pth']
    assert type(get_file_backend('')) is LocalBackend


def end_before_removal(monkeypatch, runner: Runner) -> None:
    """Train, but end as a killed run does when it has saved epoch 2, and has not yet removed what that replaces."""
    remove = LocalBackend.remove

    def end(backend: LocalBackend, path: str) -> None:
        if runner.epoch == 1:
            raise KeyboardInterrupt
        remove(backend, path)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(LocalBackend, 'remove', end)
        runner.train()


def test_what_a_killed_run_did_not_remove_any_more(tmp_path, monkeypatch):
    work_dir = tmp_path / 'run'
    end_before_removal(monkeypatch, make_runner(work_dir, max_keep_ckpts=1))
    assert checkpoints(work_dir) == ['epoch_1.pth', 'epoch_2.pth']
    make_runner(work_dir, 3, Runner, 'epoch_2.pth', max_keep_ckpts=1).train()
    assert checkpoints(work_dir) == ['epoch_3.pth']


def test_resuming_into_another_folder_removes_nothing_there(tmp_path, monkeypatch):
    end_before_removal(monkeypatch, make_runner(tmp_path / 'run', max_keep_ckpts=1))
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other/epoch_1.pth').touch()
    make_runner(tmp_path / 'other', 2, Runner, '../run/epoch_2.pth', max_keep_ckpts=1).train()
    assert checkpoints(tmp_path / 'other') == ['epoch_1.pth']


@pytest.mark.parametrize('name', ['..', '../precious', '{outside}', '.', ''])
def test_a_checkpoint_cannot_have_files_elsewhere_removed(tmp_path, name):
    outside = tmp_path / 'precious'
    outside.mkdir()
    work_dir = tmp_path / 'run'
    make_runner(work_dir, 1, Runner).train()
    checkpoint = torch.load(work_dir / 'epoch_1.pth', weights_only=False)
    checkpoint['message_hub']['runtime_info']['knet_plugin_replaced'] = [name.format(outside=outside)]
    torch.save(checkpoint, work_dir / 'epoch_1.pth')
    make_runner(work_dir, 2, Runner, 'epoch_1.pth').train()
    assert outside.is_dir()
    assert checkpoints(work_dir) == ['epoch_1.pth', 'epoch_2.pth']


def test_best_model_outlives_a_failure(tmp_path, full_disk):
    work_dir = tmp_path / 'run'
    runner = make_runner(work_dir, epochs=1, save_best='score', rule='greater')
    runner.train()
    hook, = (hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
    hook.after_val_epoch(runner, dict(score=1))
    runner.train_loop._epoch = 2
    hook.after_val_epoch(runner, dict(score=2))
    hook.after_val_epoch(runner, dict(score=3))  # under the same name
    assert names(work_dir, 'best*') == ['best_score_epoch_2.pth']
    assert runner.message_hub.get_info('knet_plugin_replaced') == []
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
    make_runner(tmp_path / 'run', epochs=1, backend_args=dict(backend='tests_storage')).train()
    assert Storage.written == ['epoch_1.pth']
