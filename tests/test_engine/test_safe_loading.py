"""No checkpoint runs code, whichever way it is loaded; mmengine's own training checkpoints load."""

import gc
import os
import pickle
import runpy
import shutil
import sys
import zipfile
from contextlib import nullcontext, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS
from mmengine.runner import FlexibleRunner, Runner
from mmengine.runner.checkpoint import CheckpointLoader
from tiny_runs import tiny_config, tiny_runner

from knet_plugin.checkpoint import CheckpointError, convert_checkpoint, read_checkpoint
from knet_plugin.checkpoint.reading import load_file
from knet_plugin.cli import resolve_tool
from knet_plugin.compat import release
from knet_plugin.engine.resuming import find_checkpoint
from knet_plugin.engine.safe_loading import SafeLoadingHook, load_from_http, safe_loading
from knet_plugin.engine.safe_loading import load_from_local as safe_local

pytestmark = pytest.mark.skipif(release(torch.__version__) < (2, 6), reason='torch below 2.6 does not check files')


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def malicious(tmp_path) -> Path:
    """A training checkpoint that makes the folder ``trace`` beside it."""
    path = tmp_path / 'iter_1.pth'
    content = dict(state_dict=MODELS.build(dict(type='Line')).state_dict(), meta=dict(iter=1, epoch=1), optimizer={})
    torch.save(dict(content, extra=Payload(tmp_path / 'trace')), path)
    yield path
    assert not (tmp_path / 'trace').exists()


def load_in_block(path: Path) -> None:
    with safe_loading():
        CheckpointLoader.load_checkpoint(str(path))


def convert(path: Path) -> None:
    convert_checkpoint(path, path.with_name('out.pth'), MODELS.build(dict(type='Line')))


def run(path: Path, kind: type, method: str, resume: bool = True) -> None:
    cfg = tiny_config(path.parent / 'run', 2, path, custom_hooks=[dict(type='knet_plugin.SafeLoadingHook')])
    cfg.resume = resume
    with safe_loading() if kind is FlexibleRunner else nullcontext():
        getattr(kind.from_cfg(cfg), method)()


@pytest.mark.parametrize('load', [
    load_file, read_checkpoint, load_in_block, convert, lambda path: find_checkpoint(path.parent),
    *(partial(run, kind=kind, **options) for kind in (Runner, FlexibleRunner)
      for options in (dict(method='train'), dict(method='train', resume=False), dict(method='test')))])
def test_python_entry_points_run_no_code(malicious, load):
    with pytest.raises(CheckpointError, match=r'iter_1\.pth asks for code .*KNET_TRUST_CHECKPOINTS=1'):
        load(malicious)


@pytest.mark.parametrize(('tool', 'arguments'), [
    ('train', ['CONFIG', '--resume', 'FILE']), ('train', ['CONFIG', '--resume']),
    ('train', ['CONFIG', '--cfg-options', 'load_from=FILE']), ('test', ['CONFIG', 'FILE']),
    ('convert_checkpoint', ['FILE', 'OUT', '--config', 'CONFIG'])])
def test_tools_run_no_code(malicious, tool, arguments, monkeypatch, capsys):
    cfg = tiny_config(malicious.parent)
    cfg.custom_imports = dict(imports=['tiny_runs'])
    cfg.dump(malicious.with_name('config.py'))
    names = dict(CONFIG='config.py', FILE=malicious.name, OUT='out.pth')
    given = [malicious.parent / names[each] if each in names else each.replace('FILE', str(malicious))
             for each in arguments]
    monkeypatch.setattr(sys, 'argv', [tool, *map(str, given)])
    with pytest.raises((CheckpointError, SystemExit), match=r'iter_1\.pth asks for code'):
        runpy.run_path(str(resolve_tool(tool)), run_name='__main__')


def test_trust_is_asked_for(tmp_path, monkeypatch):
    torch.save(dict(extra=Payload(tmp_path / 'trace')), tmp_path / 'file.pth')
    monkeypatch.setenv('KNET_TRUST_CHECKPOINTS', '1')
    load_in_block(tmp_path / 'file.pth')
    assert (tmp_path / 'trace').exists()


def test_readers_are_restored(tmp_path):
    def reader():
        return CheckpointLoader._get_checkpoint_loader('file.pth')

    before = reader()
    with suppress(KeyError), safe_loading():
        assert reader() is safe_local
        raise KeyError
    assert reader() is before
    tiny_runner(Runner, tmp_path / 'run', custom_hooks=[dict(type='knet_plugin.SafeLoadingHook')]).train()
    assert reader() is before


def test_an_aborted_run_does_not_lift_the_protection_of_another():
    aborted = SafeLoadingHook()
    aborted.before_run(None)
    with safe_loading():
        del aborted
        gc.collect()
        assert CheckpointLoader._get_checkpoint_loader('file.pth') is safe_local


@pytest.mark.parametrize('value', [np.float64(3.5), np.float32(0.25), np.int64(-7), np.bool_(True),
                                   np.arange(6).reshape(2, 3), np.zeros(3, dtype=np.uint8)], ids=repr)
def test_numpy_values_load(tmp_path, value):
    torch.save(dict(value=value), tmp_path / 'file.pth')
    CheckpointLoader.load_checkpoint(str(tmp_path / 'file.pth'))  # after it, the forks forbid what they had allowed
    loaded = load_file(tmp_path / 'file.pth')['value']
    assert loaded.dtype == value.dtype and np.array_equal(loaded, value)


class Reach:
    """Pickles as ``getattr(owner, name)``."""

    def __init__(self, owner, name) -> None:
        self.arguments = owner, name

    def __reduce__(self):
        return getattr, self.arguments


@pytest.mark.parametrize(('owner', 'name'), [(HistoryBuffer, '__init__'), (HistoryBuffer, 'update'), (dict, 'get'),
                                             (np.ndarray, 'tofile')])
def test_a_file_cannot_reach_for_other_attributes(tmp_path, owner, name):
    torch.save(dict(value=Reach(owner, name)), tmp_path / 'file.pth')
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'file.pth', weights_only=True)


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob('*')}


def test_an_archive_with_paths_that_lead_out_writes_nothing(tmp_path):
    path = tmp_path / 'folder/model.pth'
    path.parent.mkdir()
    torch.save(dict(state_dict=dict(weight=torch.ones(1))), path)
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr('../escaped.txt', 'text')
    before = tree(tmp_path)
    with suppress(CheckpointError):  # some versions of torch refuse it, which is fine
        load_file(path)
    assert tree(tmp_path) == before


@pytest.mark.parametrize('name', ['..', '%2e%2e', '..%2f..%2fescaped.pth', '', 'a/../../../escaped.pth'])
def test_a_download_stays_in_its_folder(name, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'a/b/hub'))
    monkeypatch.setattr(torch.hub, 'download_url_to_file',
                        lambda url, path, *args: torch.save(dict(weight=torch.ones(1)), path))
    with suppress(CheckpointError, OSError):
        load_from_http(f'https://example.org/models/{name}')
    assert all(path.startswith('a/b/hub') or path in ('a', 'a/b') for path in tree(tmp_path))


class Site(SimpleHTTPRequestHandler):
    """Serves files quietly."""

    def log_message(self, *args) -> None:
        pass


def test_downloads_are_checked(tmp_path, monkeypatch):
    site = tmp_path / 'site'
    site.mkdir()
    torch.save(dict(state_dict={'a': torch.ones(1)}), site / 'good.pth')
    torch.save(dict(extra=Payload(tmp_path / 'trace')), site / 'bad.pth')
    (site / 'page.pth').write_bytes(b'<html>busy</html>')
    shutil.copy(site / 'good.pth', site / 'named-00000000.pth')
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    with ThreadingHTTPServer(('127.0.0.1', 0), partial(Site, directory=site)) as server, safe_loading():
        Thread(target=server.serve_forever, daemon=True).start()
        address = f'http://127.0.0.1:{server.server_port}'
        for name, error in (('bad', 'asks for code'), ('page', 'web page'), ('named-00000000', 'invalid hash'),
                            ('nowhere', '404')):
            with pytest.raises(CheckpointError, match=error):
                CheckpointLoader.load_checkpoint(f'{address}/{name}.pth')
        assert CheckpointLoader.load_checkpoint(f'{address}/good.pth')['state_dict']['a'] == 1
        server.shutdown()
    with safe_loading():
        assert CheckpointLoader.load_checkpoint(f'{address}/good.pth')['state_dict']['a'] == 1  # from the cache
    assert not (tmp_path / 'trace').exists()
