"""Files that come from elsewhere: none of them runs code, none makes us write outside the folder that we were given."""

import ast
import json
import os
import pickle
import shutil
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
from knet_plugin.hosts import release
from knet_plugin.safe_loading import load_from_http

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*ROOT.glob('knet_plugin/**/*.py'), *ROOT.glob('tools/*.py'), *ROOT.glob('.ci/*.py')])
EXECUTING = {'eval', 'exec', 'compile', 'pickle.load', 'pickle.loads', 'pickle.Unpickler', 'os.system', 'marshal.loads',
             'yaml.load', 'yaml.unsafe_load', 'shelve.open', 'joblib.load', 'dill.load', 'mmengine.load'}


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    """All calls of a file, with the dotted names of what they call."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return [(ast.unparse(node.func), node) for node in nodes if isinstance(node, ast.Call)]


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_read_that_could_run_code(path):
    found = calls(path)
    assert not [name for name, _ in found if name in EXECUTING]
    for name, call in found:
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        if name == 'torch.load':
            assert given.get('weights_only') in ('True', 'not trust'), f'{path}: torch.load without weights_only'
        if name in ('np.load', 'numpy.load'):
            assert given.get('allow_pickle', 'False') == 'False'
        if name.startswith('subprocess.'):
            assert given.get('shell', 'False') == 'False'


def test_the_check_sees_what_it_looks_for(tmp_path):
    (tmp_path / 'bad.py').write_text('import torch, pickle\ntorch.load("x")\npickle.loads(b"")\n')
    with pytest.raises(AssertionError):
        test_nothing_is_read_that_could_run_code(tmp_path / 'bad.py')
    (tmp_path / 'bad.py').write_text('import torch\ntorch.load("x")\n')
    with pytest.raises(AssertionError, match='without weights_only'):
        test_nothing_is_read_that_could_run_code(tmp_path / 'bad.py')


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
         str(work / 'submission'), '--image-info', str(hostile / 'annotations/panoptic_val.json'), '--img-dir',
         str(hostile / 'val'), '--work-dir', str(work)], work)
    new = tree(tmp_path) - before
    assert any(path.startswith('c/d/work/submission') for path in new)
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
