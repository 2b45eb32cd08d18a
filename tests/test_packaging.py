"""What is installed, in every way of installing; and that the clone stays as it was."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

import pytest
import yaml
from mmengine.config import Config
from packaging.requirements import Requirement
from test_metafiles import MODELS

from knet_plugin import __version__
from knet_plugin.cli import list_configs, resolve_config

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
RESOURCE_FOLDERS = ('knet_plugin/.mim', '+knet_plugin_mim')


def requirements(name: str) -> dict[str, list[str]]:
    """The pins of a requirement file: versions by name (several where they depend on Python's version)."""
    pins: dict[str, list[str]] = {}
    for line in (ROOT / 'requirements' / name).read_text().splitlines():
        if line.startswith('-r '):
            pins |= requirements(line.removeprefix('-r '))
        elif line and not line.startswith('#'):
            package, separator, version = line.partition(';')[0].strip().partition('==')
            assert separator, f'{line!r} is not pinned'
            pins.setdefault(package, []).append(version)
    return pins


def run(*command: object, cwd: Path, **environment: str) -> str:
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=dict(os.environ, **environment),
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob('*')
            if path.is_file() and '__pycache__' not in path.parts}


@pytest.mark.parametrize('name', ['onedl.txt', 'openmmlab.txt', 'oldest.txt', 'dev.txt', 'build.txt', 'audit.txt',
                                  'site.txt'])
def test_everything_is_pinned(name):
    assert len(requirements(name)) >= 5
    assert all(version for versions in requirements(name).values() for version in versions)


def test_constraints_include_nothing():
    # What a constraint file includes by -r is installed, not only pinned, with requirements that are known to be wrong.
    constraints = re.findall(r' -c (requirements\S+)', (ROOT / 'Makefile').read_text())
    assert constraints
    assert not [name for name in constraints if '\n-r ' in '\n' + (ROOT / name).read_text()]


def test_the_distributions_agree_on_everything_but_the_hosts():
    forks, originals = requirements('onedl.txt'), requirements('openmmlab.txt')
    shared = forks.keys() & originals.keys()
    assert {name: forks[name] for name in shared} == {name: originals[name] for name in shared}
    oldest = requirements('oldest.txt')
    assert {name for name in forks if forks[name] != oldest[name]} == {'torch', 'numpy'}


@pytest.mark.parametrize('extra', ['onedl', 'openmmlab'])
def test_extras_allow_the_tested_versions(extra):
    parsed = [Requirement(text) for text in PROJECT['optional-dependencies'][extra]]
    hosts = {'mmengine', 'mmcv', 'mmdet', 'mmsegmentation'} if extra == 'openmmlab' else {
        'onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmsegmentation'}
    assert hosts <= {each.name for each in parsed}
    pins = requirements(f'{extra}.txt')
    for each in parsed:
        assert all(version in each.specifier for version in pins[each.name]), each
        assert each.name not in hosts or any(bound.operator == '<' for bound in each.specifier), each


def test_citation_names_this_version():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert str(citation['version']) == __version__
    authors = [author['family-names'] for author in citation['preferred-citation']['authors']]
    assert authors == ['Zhang', 'Pang', 'Chen', 'Loy']


@pytest.fixture(scope='module')
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a clone of this repository has."""
    target = tmp_path_factory.mktemp('packaging') / 'clone'
    ignored = shutil.ignore_patterns('.git', '.venv*', '__pycache__', '*.egg-info', '.*_cache', '.hypothesis', 'data',
                                     'build', 'dist', 'work_dirs')
    shutil.copytree(ROOT, target, ignore=ignored)
    return target


@pytest.fixture(scope='module')
def wheel(clone: Path) -> Path:
    """A wheel built from it."""
    target = clone.parent / 'dist'
    before = files_below(clone)
    run(sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-w', target, '.', cwd=clone)
    assert files_below(clone) == before
    [path] = target.glob('*.whl')
    return path


@pytest.fixture(scope='module')
def site(wheel: Path) -> Path:
    """A folder that the wheel is installed in, apart from the environment."""
    target = wheel.parent.parent / 'site'
    run(sys.executable, '-m', 'pip', 'install', '--no-deps', '--target', target, wheel, cwd=wheel.parent)
    return target


@pytest.mark.slow
def test_wheel_holds_package_and_resources(wheel, clone):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in RESOURCE_FOLDERS:
        assert f'{folder}/model-index.yml' in names
        for name in ('configs', 'tools'):
            assert files_below(clone / name) == {file.removeprefix(f'{folder}/{name}/') for file in names
                                                 if file.startswith(f'{folder}/{name}/')}
    package = {file for file in names if file.startswith('knet_plugin/') and '/.mim/' not in file}
    assert package == {f'knet_plugin/{file}' for file in files_below(clone / 'knet_plugin')}
    assert 'knet_plugin/py.typed' in package
    assert {name.partition('/')[0] for name in names} == {'knet_plugin', '+knet_plugin_mim',
                                                          f'knet_plugin-{__version__}.dist-info'}


@pytest.mark.slow
def test_wheel_works_from_anywhere(site, tmp_path):
    environment = {'PYTHONPATH': str(site)}
    assert run(sys.executable, '-m', 'knet_plugin', 'configs', cwd=tmp_path, **environment).split() == list_configs()
    root = run(sys.executable, '-c', 'from knet_plugin.cli import resource_root; print(resource_root())', cwd=tmp_path,
               **environment)
    assert Path(root.strip()) == site / 'knet_plugin' / '.mim'
    usage = run(sys.executable, '-m', 'knet_plugin', 'train', '-h', cwd=tmp_path, **environment)
    assert '--auto-scale-lr' in usage
    assert run(sys.executable, site / 'bin' / 'knet', '--version', cwd=tmp_path, **environment) == \
        f'knet_plugin {__version__}\n'


@pytest.mark.slow
def test_both_mims_find_the_resources_of_a_wheel(wheel, clone, tmp_path):
    """Installed in an environment, since mim asks the environment's metadata."""
    python = tmp_path / 'venv' / 'bin' / 'python'
    run(sys.executable, '-m', 'venv', '--without-pip', tmp_path / 'venv', cwd=tmp_path)
    run(sys.executable, '-m', 'pip', '--python', python, 'install', '--no-deps', wheel, cwd=tmp_path)
    program = """
from importlib.metadata import distribution
found = distribution('knet_plugin')
print(found.locate_file('.') / str(found.files[0]).split('/')[0])  # onedl-mim
print(found.locate_file('.') / 'knet_plugin' / '.mim')  # openmim
"""
    for root in run(python, '-c', program, cwd=tmp_path).split():
        for name in ('configs', 'tools'):
            assert files_below(Path(root) / name) == files_below(clone / name)
        assert (Path(root) / 'model-index.yml').is_file()


@pytest.mark.slow
def test_mim_searches_all_models(site, tmp_path):
    run(sys.executable, '-m', 'mim', 'search', 'knet_plugin', '--model', 'K-Net', '--json', 'found.json', cwd=tmp_path,
        PYTHONPATH=str(site))
    found = json.loads((tmp_path / 'found.json').read_text())
    assert found['config'] == {name: model['Config'] for name, model in MODELS.items()}
    assert set(found['model'].values()) == {'k-net'}


NO_NETWORK = dict.fromkeys(['https_proxy', 'HTTPS_PROXY'], 'http://127.0.0.1:9') | {'no_proxy': '', 'NO_PROXY': ''}


@pytest.mark.slow
def test_mim_downloads_configs(site, tmp_path):
    """Without a network: all that needs none works, and what fails is the transfer of the weights."""
    def command(*names: str) -> list[str]:
        return [sys.executable, '-m', 'mim', 'download', 'knet_plugin', '--dest', '.', '--config', *names]

    environment = NO_NETWORK | {'PYTHONPATH': str(site)}
    weights = {name: model['Weights'].rpartition('/')[-1] for name, model in MODELS.items()}
    without = [name for name, file in weights.items() if not file]
    run(*command(*without), cwd=tmp_path, **environment)
    assert files_below(tmp_path) == {f'{name}.py' for name in without}

    for name in ('knet-s3_r50_fpn_1x_coco', 'knet-s3_r50_fpn_1x_coco-panoptic'):
        done = subprocess.run(command(name), cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True,
                              check=False)
        assert done.returncode != 0
        assert f'processing {name}...' in done.stdout and 'ProxyError' in done.stderr, done.stderr
        assert 'download.openmmlab.com' in done.stderr

    there = {file for file in weights.values() if file}
    for file in there:
        (tmp_path / file).touch()
    run(*command(*(weights.keys() - set(without))), cwd=tmp_path, **environment)
    assert files_below(tmp_path) == there | {f'{name}.py' for name in weights}
    for name in weights:
        assert Config.fromfile(tmp_path / f'{name}.py').model == Config.fromfile(resolve_config(name)).model


@pytest.mark.slow
def test_editable_installation_uses_the_clone_and_leaves_it_clean(clone, tmp_path):
    python = tmp_path / 'venv' / 'bin' / 'python'
    run(sys.executable, '-m', 'venv', '--without-pip', tmp_path / 'venv', cwd=tmp_path)
    before = files_below(clone)
    run(sys.executable, '-m', 'pip', '--python', python, 'install', '--no-deps', '--no-build-isolation', '-e', '.',
        cwd=clone, PYTHONPATH=os.pathsep.join(path for path in sys.path if path.endswith('site-packages')))
    assert files_below(clone) == before
    program = 'import importlib.util; print(importlib.util.find_spec("knet_plugin").origin)'
    assert Path(run(python, '-c', program, cwd=tmp_path).strip()) == clone / 'knet_plugin' / '__init__.py'


@pytest.mark.slow
def test_source_distribution_builds_the_same_wheel(clone, wheel, tmp_path):
    program = f'from setuptools import build_meta; print(build_meta.build_sdist({str(tmp_path)!r}))'
    before = files_below(clone)
    run(sys.executable, '-c', program, cwd=clone)
    assert files_below(clone) - before <= {f'knet_plugin.egg-info/{name}' for name in (
        'PKG-INFO', 'SOURCES.txt', 'dependency_links.txt', 'entry_points.txt', 'requires.txt', 'top_level.txt')}
    [archive] = tmp_path.glob('*.tar.gz')
    run(sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-w', tmp_path, archive,
        cwd=tmp_path)
    [again] = tmp_path.glob('*.whl')
    assert set(zipfile.ZipFile(again).namelist()) == set(zipfile.ZipFile(wheel).namelist())
