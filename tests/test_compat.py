"""The checks of the host packages, on packages made for the test and on the installed ones."""

import io
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS
from mmengine.utils import ManagerMixin, manager

from knet_plugin.compat import (
    DISTRIBUTIONS,
    Host,
    HostPackageError,
    allow_host_checkpoints,
    check_host_packages,
    installed,
    installed_distribution,
    release,
    require,
)


@pytest.fixture
def make_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes an importable package with the given source."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def make(name: str, source: str, **submodules: str) -> None:
        folder = tmp_path / name
        folder.mkdir()
        (folder / '__init__.py').write_text(source)
        for submodule, text in submodules.items():
            (folder / f'{submodule}.py').write_text(text)

    yield make
    for module in set(sys.modules) - before:
        del sys.modules[module]


@pytest.mark.parametrize(('version', 'expected'), [
    ('2.13.0+cpu', (2, 13, 0)), ('2.0', (2, 0)), ('0.11.0rc2', (0, 11, 0)), ('10.2.1.post3', (10, 2, 1))])
def test_release_keeps_the_numbers(version, expected):
    assert release(version) == expected


def test_release_orders_by_number():
    assert release('0.9.3') < release('0.10.0') < release('1')
    with pytest.raises(ValueError, match='unknown'):
        release('unknown')


def test_a_manager_that_fails_keeps_no_lock():
    class Broken(ManagerMixin):
        def __init__(self, name):
            raise OSError(name)

    class Unused(ManagerMixin):
        def __init__(self, name):
            super().__init__(name)

    with pytest.raises(OSError, match='disk'):
        Broken.get_instance('disk')
    with pytest.raises(RuntimeError, match='Unused'):
        Unused.get_current_instance()
    assert Unused.get_instance('one') is Unused.get_current_instance()
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(manager._lock.acquire, blocking=False).result()
        thread.submit(manager._lock.release).result()


def test_installed_hosts_are_accepted():
    check_host_packages()
    assert installed('mmengine') and not installed('absent_host')
    require('mmengine')


def test_missing_host_is_named_with_the_commands_that_install_it():
    with pytest.raises(HostPackageError, match='absent_host') as caught:
        require('absent_host')
    assert all(command in str(caught.value) for command in DISTRIBUTIONS[installed_distribution()])
    with pytest.raises(HostPackageError, match='absent_host') as caught:
        check_host_packages([Host('absent_host')])
    assert all(command in str(caught.value) for commands in DISTRIBUTIONS.values() for command in commands)


def test_a_host_is_checked_only_where_it_is_needed():
    check_host_packages([Host('absent_host', only_with='absent_too')])
    with pytest.raises(HostPackageError, match='absent_host'):
        check_host_packages([Host('absent_host', only_with='mmengine')])


@pytest.mark.parametrize('version', ['1.10', '1.10.1', '2.0+cu130'])
def test_new_enough(make_host, version):
    make_host('new_host', f'__version__ = "{version}"')
    check_host_packages([Host('new_host', '1.10')])


@pytest.mark.parametrize(('source', 'submodules', 'match'), [
    ('__version__ = "1.9.9"', {}, r'1\.9\.9.*1\.10'),
    ('__version__ = "1.10"', {}, 'bad_host._ext.*compile it'),
    ('__version__ = "1.10"', {'_ext': 'raise ImportError("undefined symbol: _ZN3c10")'}, '_ZN3c10.*compile it'),
    ('assert False, "MMCV==9 is used\\n but incompatible"', {}, 'MMCV==9 is used but incompatible'),
    ('raise OSError("libbroken.so")', {}, 'libbroken.so'),
    ('import absent_host', {}, 'absent_host'),
], ids=['too old', 'no operators', 'operators of another torch', 'refuses another host', 'broken', 'needs another'])
def test_unusable_host_is_named_with_the_reason(make_host, source, submodules, match):
    make_host('bad_host', source, **submodules)
    with pytest.raises(HostPackageError, match=f'bad_host.*{match}'):
        check_host_packages([Host('bad_host', '1.10', submodule='bad_host._ext', hint='compile it')])


def test_the_error_survives_mmengine_importing_a_scope(make_host):
    source = 'from knet_plugin.compat import Host, check_host_packages\ncheck_host_packages([Host("absent_host")])'
    make_host('scoped_plugin', source, registry='')
    with pytest.raises(HostPackageError, match='absent_host'):
        MODELS.build({'type': 'scoped_plugin.Anything'})


@pytest.mark.parametrize('modules', [['mmcv'], ['pycocotools'], ['mmdet', 'mmseg']])
def test_import_of_the_package_names_what_is_missing(modules):
    # None in sys.modules is how Python marks a module as absent.
    program = f'import sys; sys.modules.update(dict.fromkeys({modules})); import knet_plugin'
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    error, = (line for line in done.stderr.splitlines() if 'HostPackageError: ' in line)
    assert all(module in error for module in modules)


@pytest.mark.skipif(release(torch.__version__) < (2, 6), reason='torch.load reads everything by default')
def test_only_what_mmengine_stores_can_be_loaded():
    allow_host_checkpoints()  # again: the forks' reader may have forbidden it since the import
    history = HistoryBuffer([1.0], [1])
    content = dict(history=history, array=np.arange(3), scalar=np.float32(2), flag=np.bool_(True), span=slice(1, 2))
    loaded = reload(content)
    assert loaded['history'].mean() == 1 and loaded['array'].tolist() == [0, 1, 2]
    assert {name: loaded[name] for name in ('scalar', 'flag', 'span')} == dict(scalar=2, flag=True, span=slice(1, 2))
    for attribute in (Getattr(HistoryBuffer, '__init__'), Getattr(np.ndarray, 'mean'), Getattr(slice, 'indices')):
        with pytest.raises(pickle.UnpicklingError, match=attribute.name):
            reload(attribute)


class Getattr:
    """Pickles as a call of ``getattr``."""

    def __init__(self, owner: type, name: str) -> None:
        self.owner, self.name = owner, name

    def __reduce__(self) -> tuple:
        return getattr, (self.owner, self.name)


def reload(content: object) -> object:
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_the_k_net_of_mmseg_says_whose_it_is(monkeypatch):
    from mmseg.models.decode_heads import IterativeDecodeHead

    lines = []
    monkeypatch.setattr('mmengine.logging.print_log', lambda line, *_, **__: lines.append(line))
    with pytest.raises(TypeError):  # built without its arguments
        IterativeDecodeHead()
    assert len(lines) == 1 and 'resolve_config' in lines[0]


def test_the_runtime_leaves_the_hosts_alone():
    program = 'import sys, knet_plugin.runtime; sys.exit("torch" in sys.modules or "mmengine" in sys.modules)'
    subprocess.run([sys.executable, '-c', program], check=True, env=dict(os.environ, KNET_RUNTIME_ONLY='1'))
