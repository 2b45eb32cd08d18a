"""The latest intact checkpoint is found, whatever the interruption left."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.logging import HistoryBuffer
from small_runs import run_environment, small_config, small_data

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


def cut(path: Path) -> Path:
    stat = path.stat()
    os.truncate(path, stat.st_size // 2)
    os.utime(path, (stat.st_atime, stat.st_mtime))
    return path


def test_nothing_there(tmp_path):
    assert find_checkpoint(tmp_path) == (None, [])
    assert find_checkpoint(tmp_path / 'missing', tmp_path) == (None, [])


def test_later_file_that_is_not_named_yet(tmp_path):
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
    with pytest.raises(CheckpointError, match=r'iter_10\.pth is truncated'):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize('named', ['s3://bucket/iter_10.pth', 'sharded'])
def test_remote_and_sharded_checkpoints_are_mmengines(tmp_path, named):
    (tmp_path / 'sharded').mkdir()
    named = named if '://' in named else str(tmp_path / named)
    (tmp_path / 'last_checkpoint').write_text(named)
    assert find_checkpoint(tmp_path) == (named, [])


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


@pytest.mark.slow
@pytest.mark.parametrize('other', ['nothing', 'damaged'])
def test_machines_that_share_no_storage(other, tmp_path):
    """One finds a checkpoint; the other none, or none that is intact."""
    for name in ('here', 'there'):
        (tmp_path / name).mkdir()
    torch.save(dict(meta=dict(iter=2), optimizer={}, state_dict={}), tmp_path / 'here/iter_2.pth')
    if other == 'damaged':
        (tmp_path / 'there/iter_2.pth').write_bytes(b'no checkpoint')
    config = tmp_path / 'config.py'
    small_config('semantic', small_data(tmp_path / 'data'), 4, 2).dump(config)
    port = str(torch.distributed.TCPStore('localhost', 0, is_master=True, wait_for_workers=False).port)
    processes = [subprocess.Popen(
        [sys.executable, str(resolve_tool('train')), str(config), '--work-dir', str(tmp_path / name), '--resume',
         '--launcher', 'pytorch'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=run_environment(RANK=f'{rank}', LOCAL_RANK=f'{rank}', WORLD_SIZE='2', MASTER_ADDR='localhost',
                            MASTER_PORT=port)) for rank, name in enumerate(('here', 'there'))]
    for process in processes:
        output, _ = process.communicate()
        assert process.returncode == 1, output[-4000:]
        assert f'{tmp_path}/here/iter_2.pth' in output
        found = dict(nothing='nothing', damaged='error: no checkpoint in ')[other]
        assert re.search(f'process 1 on .*: {found}', output)
