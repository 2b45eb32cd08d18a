"""The newest whole checkpoint is found, whatever the interruption left."""

import contextlib
import os
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer

from knet_plugin.checkpoint import CheckpointError
from knet_plugin.cli import resolve_tool
from knet_plugin.engine.resuming import find_checkpoint


def save(folder: Path, iteration: int, time: int | None = None, named: bool = False, **without) -> Path:
    path = folder / f'iter_{iteration}.pth'
    history = HistoryBuffer([0.5], [1])  # a class of its own is in each of mmengine's checkpoints
    content = dict(meta=dict(iter=iteration), state_dict=dict(weight=torch.zeros(1000)), optimizer={},
                   message_hub=dict(log_scalars=dict(loss=history)))
    torch.save({key: value for key, value in content.items() if key not in without}, path)
    os.utime(path, (time or iteration,) * 2)
    if named:
        (folder / 'last_checkpoint').write_text(str(path))
    return path


@contextlib.contextmanager
def nothing_allowed() -> Iterator[None]:
    """Take back what the plugin allowed torch to read when it was imported; torch 2.3 allows nothing."""
    before = getattr(torch.serialization, 'get_safe_globals', list)()
    if before:
        torch.serialization.clear_safe_globals()
    try:
        yield
    finally:
        if before:
            torch.serialization.add_safe_globals(before)


def cut(path: Path) -> Path:
    stat = path.stat()
    os.truncate(path, stat.st_size // 2)
    os.utime(path, (stat.st_atime, stat.st_mtime))
    return path


def test_nothing_there(tmp_path):
    assert find_checkpoint(tmp_path) == (None, [])
    assert find_checkpoint(tmp_path / 'missing', tmp_path) == (None, [])


def test_named_one(tmp_path):
    save(tmp_path, 10)
    named = save(tmp_path, 20, named=True)
    assert find_checkpoint(tmp_path) == (str(named), [])


def test_torch_that_can_allow_no_classes(tmp_path, monkeypatch):
    named = save(tmp_path, 10, named=True)
    monkeypatch.setattr(torch, '__version__', '2.3.0')
    with nothing_allowed():
        assert find_checkpoint(tmp_path) == (str(named), [])


def test_later_one_whose_name_was_not_noted_any_more(tmp_path):
    save(tmp_path, 10, named=True)
    assert find_checkpoint(tmp_path) == (str(tmp_path / 'iter_10.pth'), [])
    later = save(tmp_path, 20)
    assert find_checkpoint(tmp_path) == (str(later), [])


def test_files_of_an_earlier_run_in_the_same_folder(tmp_path):
    save(tmp_path, 30, time=1)
    named = save(tmp_path, 20, time=2, named=True)
    assert find_checkpoint(tmp_path) == (str(named), [])


def test_copied_folder_without_the_times(tmp_path):
    save(tmp_path, 10, time=3)
    named = save(tmp_path, 20, time=2, named=True)
    assert find_checkpoint(tmp_path) == (str(named), [])


@pytest.mark.parametrize('note', [None, '', 'gone', 'damaged'])
def test_bad_note(tmp_path, note):
    expected = save(tmp_path, 10)
    if note == 'damaged':
        cut(save(tmp_path, 20, named=True))
    elif note is not None:
        (tmp_path / 'last_checkpoint').write_text(note and str(tmp_path / 'iter_20.pth'))
    path, passed_over = find_checkpoint(tmp_path)
    assert path == str(expected)
    assert len(passed_over) == bool(note)
    assert all('iter_20.pth' in remark for remark in passed_over)


def test_damaged_one_is_passed_over(tmp_path):
    named = save(tmp_path, 10, named=True)
    cut(save(tmp_path, 20))
    path, (remark,) = find_checkpoint(tmp_path)
    assert path == str(named)
    assert 'iter_20.pth is truncated' in remark


def test_weights_are_no_checkpoint_to_resume(tmp_path):
    save(tmp_path, 20, optimizer=None)
    save(tmp_path, 30, meta=None)
    assert find_checkpoint(tmp_path) == (None, [])
    expected = save(tmp_path, 10)
    assert find_checkpoint(tmp_path) == (str(expected), [])


def test_named_one_may_lack_the_optimizer(tmp_path):
    named = save(tmp_path, 20, named=True, optimizer=None)
    assert find_checkpoint(tmp_path) == (str(named), [])


def test_further_folder(tmp_path):
    folder = tmp_path / 'elsewhere'
    folder.mkdir()
    expected = save(folder, 10)
    assert find_checkpoint(tmp_path, folder) == (str(expected), [])


def test_only_damaged_ones(tmp_path):
    cut(save(tmp_path, 10, named=True))
    with pytest.raises(CheckpointError, match=r'can be resumed:\n.*iter_10\.pth is truncated'):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize('named', ['s3://bucket/iter_10.pth', 'sharded'])
def test_what_is_for_mmengine_to_judge(tmp_path, named):
    (tmp_path / 'sharded').mkdir()
    named = named if '://' in named else str(tmp_path / named)
    (tmp_path / 'last_checkpoint').write_text(named)
    assert find_checkpoint(tmp_path) == (named, [])


def test_relative_folder(tmp_path, monkeypatch):
    cut(save(tmp_path, 20, named=True))
    expected = save(tmp_path, 10)
    monkeypatch.chdir(tmp_path)
    path, passed_over = find_checkpoint('.')
    assert path == str(expected)
    assert len(passed_over) == 1


@pytest.mark.parametrize('folder', ['./kept', 'kept/../kept', 'link'])
def test_note_that_spells_the_path_otherwise(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    Path('kept').mkdir()
    Path('link').symlink_to('kept')
    save(tmp_path / 'kept', 10)
    save(tmp_path / 'kept', 20)
    Path('last_checkpoint').write_text(f'{folder}/iter_20.pth')
    assert find_checkpoint('.', 'kept') == (f'{folder}/iter_20.pth', [])
    save(tmp_path / 'kept', 30)
    assert find_checkpoint('.', 'kept') == (str(tmp_path / 'kept/iter_30.pth'), [])


@pytest.fixture(scope='module')
def resume_from():
    return runpy.run_path(str(resolve_tool('train')))['resume_from']


def test_train_starts_anew_where_nothing_is(tmp_path, resume_from):
    cfg = Config(dict(work_dir=str(tmp_path), load_from='weights.pth'))
    remark, = resume_from(cfg, 'auto')
    assert 'starts anew' in remark
    assert cfg.load_from == 'weights.pth'
    assert not cfg.get('resume')


def test_train_looks_where_the_hook_saves(tmp_path, resume_from):
    folder = tmp_path / 'out' / 'run'
    folder.mkdir(parents=True)
    expected = save(folder, 10)
    cut(save(folder, 20))
    cfg = Config(dict(work_dir=str(tmp_path / 'run'),
                      default_hooks=dict(checkpoint=dict(out_dir=str(tmp_path / 'out')))))
    remarks = resume_from(cfg, 'auto')
    assert cfg.resume and cfg.load_from == str(expected)
    assert [remark.split(':')[0] for remark in remarks] == ['passed over', f'resuming from {expected}']


def test_train_does_not_start_anew_over_damaged_checkpoints(tmp_path, resume_from):
    cut(save(tmp_path, 10, named=True))
    with pytest.raises(SystemExit, match='leave out --resume'):
        resume_from(Config(dict(work_dir=str(tmp_path))), 'auto')


def test_train_takes_the_given_checkpoint(tmp_path, resume_from):
    cfg = Config(dict(work_dir=str(tmp_path)))
    assert resume_from(cfg, 'some.pth') == ['resuming from some.pth']
    assert cfg.resume and cfg.load_from == 'some.pth'
