"""Files that come from elsewhere: none of them runs code, none makes us write outside the folder that we were given."""

import ast
import json
import os
import pickle
import runpy
import shutil
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from small_runs import run, run_command, small_config, small_data

from knet_plugin.checkpoint.reading import CheckpointError, load_file
from knet_plugin.cli import resolve_tool
from knet_plugin.compat import release
from knet_plugin.engine.safe_loading import load_from_http

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*ROOT.glob('knet_plugin/**/*.py'), *ROOT.glob('tools/*.py'), *ROOT.glob('.ci/*.py')])
BUILTINS = {'eval', 'exec', 'compile', '__import__'}
EXECUTING = {'pickle.load', 'pickle.loads', 'pickle.Unpickler', 'os.system', 'os.popen', 'marshal.load',
             'marshal.loads', 'yaml.load', 'yaml.unsafe_load', 'shelve.open', 'joblib.load', 'dill.load', 'dill.loads',
             'mmengine.load', 'mmengine.fileio.load', 'mmengine.fileio.io.load', 'pandas.read_pickle'}
GUARDED = {'torch.load', 'numpy.load'}
"""What may be called with the right arguments, but not handed on."""


def references(path: Path) -> list[tuple[str, ast.Call | None]]:
    """All names that a file uses, dotted from the module that they come from, and the call, if it is what is called."""
    tree = ast.parse(path.read_text())
    origins = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            origins |= {each.asname: each.name for each in node.names if each.asname}
        elif isinstance(node, ast.ImportFrom):
            origins |= {each.asname or each.name: f'{node.module}.{each.name}' for each in node.names}
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            first, *rest = ast.unparse(node).split('.')
            found.append(('.'.join([origins.get(first, first), *rest]), calls.get(id(node))))
    return found


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_read_that_could_run_code(path):
    for name, call in references(path):
        assert name not in EXECUTING, f'{path}: {name}'
        assert call is None or name not in BUILTINS, f'{path}: {name}'
        assert call is not None or name not in GUARDED, f'{path}: {name} is handed on'
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords} if call else {}
        if name == 'torch.load':
            assert given.get('weights_only') in ('True', 'not trust'), f'{path}: torch.load without weights_only'
        if name == 'numpy.load':
            assert given.get('allow_pickle', 'False') == 'False', f'{path}: numpy.load with pickles'
        if name.startswith('subprocess.'):
            assert given.get('shell', 'False') == 'False', f'{path}: {name} through a shell'


@pytest.mark.parametrize('source', [
    'import torch, pickle\npickle.loads(b"")', 'import torch\ntorch.load("x")', 'from torch import load\nload("x")',
    'import torch as t\nt.load("x", weights_only=False)', 'from torch import load as read\nread("x")',
    'import torch\nread = torch.load', 'import mmengine.fileio\nmmengine.fileio.load("x.pkl")',
    'from mmengine import load\nload("x.pkl")', 'from mmengine.fileio import load\nload("x.pkl")',
    'from mmengine import fileio\nfileio.load("x.pkl")', 'import numpy as np\nnp.load("x", allow_pickle=True)',
    'eval("1")', 'from pickle import Unpickler\nclass A(Unpickler): ...',
    'from subprocess import run\nrun("ls", shell=True)'])
def test_the_check_sees_what_it_looks_for(source, tmp_path):
    (tmp_path / 'bad.py').write_text(source)
    with pytest.raises(AssertionError, match=r'bad\.py'):
        test_nothing_is_read_that_could_run_code(tmp_path / 'bad.py')


def test_the_check_passes_what_is_safe(tmp_path):
    (tmp_path / 'good.py').write_text('import json, torch\nimport numpy as np\nfrom json import load\n'
                                      'torch.load("x", weights_only=True)\nload(open("x"))\nnp.load("x")\n')
    test_nothing_is_read_that_could_run_code(tmp_path / 'good.py')


class Payload:
    """Its unpickling makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


needs_checks = pytest.mark.skipif(release(torch.__version__) < (2, 6), reason='torch below 2.6 does not check files')


@needs_checks
@pytest.mark.parametrize('archive', [True, False])
def test_a_hostile_checkpoint_runs_nothing(tmp_path, archive):
    path, trace = tmp_path / 'model.pth', tmp_path / 'trace'
    if archive:
        torch.save(dict(state_dict=dict(weight=torch.ones(1)), meta=Payload(trace)), path)
    else:
        path.write_bytes(pickle.dumps(dict(state_dict=Payload(trace))))
    with pytest.raises(CheckpointError, match='asks for code to be executed'):
        load_file(path)
    assert not trace.exists()


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob('*')}


def test_an_archive_with_paths_that_lead_out_writes_nothing(tmp_path):
    """A checkpoint is an archive: its members are read, never unpacked."""
    path = tmp_path / 'folder/model.pth'
    path.parent.mkdir()
    torch.save(dict(state_dict=dict(weight=torch.ones(1))), path)
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr('../escaped.txt', 'text')
        archive.writestr('/tmp/escaped-knet.txt', 'text')
    before = tree(tmp_path)
    with suppress(CheckpointError):  # some versions of torch refuse it, which is as well
        load_file(path)
    assert tree(tmp_path) == before and not Path('/tmp/escaped-knet.txt').exists()


@pytest.mark.parametrize('name', ['..', '%2e%2e', '..%2f..%2fescaped.pth', '', 'a/../../../escaped.pth'])
def test_a_download_stays_in_its_folder(name, tmp_path, monkeypatch):
    hub = tmp_path / 'a/b/hub'
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(hub))

    def download(url, path, *args, **kwargs):
        torch.save(dict(weight=torch.ones(1)), path)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    with suppress(CheckpointError, OSError):
        load_from_http(f'https://example.org/models/{name}')
    assert all(path.startswith('a/b/hub') or path in ('a', 'a/b') for path in tree(tmp_path))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return small_data(tmp_path_factory.mktemp('shapes') / 'data')


HOSTILE = '../../../escaped'


def hostile_copy(data: Path, root: Path) -> Path:
    """The data set with an image whose name, in all annotations, leads out of its folder (to where it lies)."""
    shutil.copytree(data, root / 'a/b/data')
    data = root / 'a/b/data'
    for file in ('instances_val', 'panoptic_val'):
        path = data / f'annotations/{file}.json'
        content = json.loads(path.read_text())
        image = content['images'][0]
        shutil.copy(data / 'val' / image['file_name'], data / 'val' / f'{HOSTILE}.jpg')
        for annotation in content['annotations']:
            if file == 'panoptic_val' and annotation['image_id'] == image['id']:
                shutil.copy(data / 'annotations/panoptic_val' / annotation['file_name'],
                            data / 'annotations/panoptic_val' / f'{HOSTILE}.png')
                annotation['file_name'] = f'{HOSTILE}.png'
        image['file_name'] = f'{HOSTILE}.jpg'
        path.write_text(json.dumps(content))
    return data


@pytest.mark.slow
def test_names_in_annotations_do_not_lead_results_out(data, tmp_path):
    """Panoptic PNGs, drawings and a submission of an image called '../../../escaped.jpg' stay where they belong."""
    work = tmp_path / 'c/d/work'
    run(small_config('panoptic', data, 1, default_hooks__checkpoint__interval=1), work)
    hostile = hostile_copy(data, tmp_path)
    cfg = small_config('panoptic', hostile, 1)
    cfg.test_evaluator = [dict(cfg.test_evaluator[0], format_only=True, outfile_prefix=str(work / 'out/results')),
                          dict(cfg.test_evaluator[1], format_only=True, outfile_prefix=str(work / 'out/results'))]
    before = tree(tmp_path)
    run(cfg, work, str(work / 'iter_1.pth'), '--show-dir', str(work / 'drawn'), command='test')
    new = tree(tmp_path) - before
    assert any(path.endswith('escaped.png') for path in new)  # it was written, in its place
    assert {path for path in new if not path.startswith('c/d/work')} == set()

    before = tree(tmp_path)
    run_command(
        [sys.executable, str(resolve_tool('test_dev')), str(work / 'config.py'), str(work / 'iter_1.pth'), '--out',
         str(work / 'for-the-server'), '--image-info', str(hostile / 'annotations/panoptic_val.json'), '--img-dir',
         str(hostile / 'val'), '--work-dir', str(work)], work)
    new = tree(tmp_path) - before
    assert any('for-the-server' in Path(path).parts for path in new)
    assert {path for path in new if not path.startswith('c/d/work')} == set()


def test_label_images_stay_in_their_folder(tmp_path):
    """mmseg's metric names them after the images."""
    from mmseg.evaluation import IoUMetric
    metric = IoUMetric(output_dir=str(tmp_path / 'a/b/out'), format_only=True)
    metric.dataset_meta = Config(dict(classes=['x', 'y']))
    prediction = torch.from_numpy(np.ones((1, 4, 4), np.int64))
    metric.process({}, [dict(pred_sem_seg=dict(data=prediction), img_path=f'/data/{HOSTILE}.jpg')])
    assert {path for path in tree(tmp_path) if path.endswith('.png')} == {'a/b/out/escaped.png'}
    assert cv2.imread(str(tmp_path / 'a/b/out/escaped.png')) is not None


@pytest.mark.skipif(not (ROOT / '.ci/audit.py').is_file(), reason='only in a clone')
@pytest.mark.parametrize(('output', 'errors', 'passes'), [
    ('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', '', True),
    ('{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "X", "fix_versions": []}]}]}', '', False),
    ('', 'Traceback ...\nrequests.exceptions.ConnectionError: HTTPSConnectionPool(host=...)', True),
    ('', 'ERROR:pip_audit._cli:Could not connect to the feed\nERROR:pip_audit._cli:Tip: your network may ...', True),
    ('', 'Traceback ...\npip_audit._service.interface.ServiceError', True),
    ('', 'python: No module named pip_audit', False),
    ('', 'usage: pip-audit [-h]\npip-audit: error: unrecognized arguments: --timout', False),
    ('', 'Traceback ...\nConnectionError: first\nDuring handling ...\nKeyError: 2', False),
    ('[]', '', False),
    ('', '', False)])
def test_an_audit_that_fails_is_a_finding(output, errors, passes, monkeypatch):
    look_at_requirements = runpy.run_path(str(ROOT / '.ci/audit.py'))['look_at_requirements']
    monkeypatch.setattr(subprocess, 'run', lambda *args, **kwargs: subprocess.CompletedProcess(args, 1, output, errors))
    assert look_at_requirements('some.txt') == passes
