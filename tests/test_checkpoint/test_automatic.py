"""Files of the official release and of mmseg load by themselves, in every way that the hosts load files."""

import json
import shutil
import subprocess
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import mmdet.apis
import mmseg.apis
import numpy as np
import pytest
import torch
from detection_cases import check_predictions
from golden import Golden, cases, detector_config
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint
from segmentation_cases import check_segmentation, segmentor_config

from knet_plugin.checkpoint import CheckpointError, to_official
from knet_plugin.cli import resolve_config
from knet_plugin.datasets.shapes import make_shapes
from knet_plugin.compat import release
from knet_plugin.registry import MODELS

DETECTORS = ['knet_instance_trained', 'knet_panoptic_trained']
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(160, 96), keep_ratio=True),
            dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
checked = pytest.mark.skipif(release(torch.__version__) < (2, 6), reason='torch below 2.6 does not check files')


def detector_file(folder, name):
    """A config file with a golden detector, and a checkpoint as the official release wrote them."""
    golden = Golden(name)
    dataset = dict(type='CocoPanopticDataset', data_prefix=dict(img='', seg=''), pipeline=PIPELINE, test_mode=True,
                   metainfo=dict(classes=[f'c{i}' for i in range(10)]))
    model = detector_config(golden.config)
    Config(dict(default_scope='mmdet', custom_imports=dict(imports=['knet_plugin']), model=model,
                test_dataloader=dict(dataset=dataset), visualizer=dict(type='DetLocalVisualizer'))
           ).dump(folder / 'config.py')
    classes = tuple(f'c{i}' for i in range(model['panoptic_head']['num_things_classes']
                                           + model['panoptic_head']['num_stuff_classes']))
    meta = dict(mmdet_version='2.17.0', epoch=12, CLASSES=classes, PALETTE=[(1, 2, 3)] * len(classes))
    torch.save(dict(meta=meta, state_dict=golden.state, optimizer=dict(state={})), folder / 'official.pth')
    return golden, folder / 'config.py', folder / 'official.pth', classes


@pytest.mark.parametrize('name', DETECTORS)
def test_init_detector(tmp_path, name):
    golden, config, weights, classes = detector_file(tmp_path, name)
    model = mmdet.apis.init_detector(config, str(weights), device='cpu')
    assert tuple(model.dataset_meta['classes']) == classes
    check_predictions(model, golden)


@pytest.mark.parametrize('name', DETECTORS)
def test_inferencer(tmp_path, name):
    golden, config, weights, classes = detector_file(tmp_path, name)
    inferencer = mmdet.apis.DetInferencer(str(config), str(weights), device='cpu', show_progress=False)
    assert tuple(inferencer.visualizer.dataset_meta['classes']) == classes
    check_predictions(inferencer.model, golden)
    image = np.random.default_rng(0).integers(0, 255, (60, 100, 3), dtype=np.uint8)
    assert inferencer(image, no_save_vis=True)['predictions'][0]['labels']


@pytest.mark.parametrize('name', DETECTORS)
def test_load_checkpoint(tmp_path, name):
    golden, config, weights, _ = detector_file(tmp_path, name)
    model = MODELS.build(Config.fromfile(config).model).eval()
    load_checkpoint(model, str(weights), map_location='cpu', strict=True)
    check_predictions(model, golden)


@pytest.mark.parametrize('name', cases('seg_encoder_decoder_*'))
def test_init_model(tmp_path, name):
    golden = Golden(name)
    cfg = Config(dict(default_scope='mmseg', model=segmentor_config(golden.config)))
    weights = tmp_path / 'official.pth'
    torch.save(dict(meta=dict(CLASSES=('a', ), PALETTE=[[0, 0, 0]]), state_dict=golden.state), weights)
    check_segmentation(mmseg.apis.init_model(cfg, str(weights), device='cpu'), golden)


def test_an_official_file_is_measured(tmp_path):
    """``tools/test.py``, which ``mim test`` runs, on one set of weights under both kinds of names."""
    make_shapes(tmp_path / 'data/shapes_clear', 1, 3, workers=0)
    name = 'knet-s3_r18-s_fpn_1xb8-adamw-1k_shapes-panoptic-128x128'
    cfg = Config.fromfile(resolve_config(name))
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.dump(tmp_path / 'config.py')
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    model.init_weights()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    figures = []
    for file, weights in (('ours', model.state_dict()), ('official', to_official(model.state_dict(), model))):
        torch.save(dict(meta=dict(epoch=1), state_dict=weights), tmp_path / f'{file}.pth')
        done = subprocess.run([sys.executable, '-m', 'knet_plugin', 'test', 'config.py', f'{file}.pth', '--work-dir',
                               file], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        figures.append(json.loads(next((tmp_path / file).glob('*/*.json')).read_text()))
    assert figures[0]['mIoU'] > 0
    assert {key: value for key, value in figures[0].items() if 'time' not in key} == {
        key: value for key, value in figures[1].items() if 'time' not in key}


def test_nothing_fits(tmp_path):
    _, config, weights, _ = detector_file(tmp_path, 'knet_instance_trained')
    torch.save(dict(state_dict={'conv1.weight': torch.rand(2), 'fc.bias': torch.rand(1)}), weights)
    with pytest.raises(CheckpointError, match=r"none of the weights .* begin with \['conv1.weight', 'fc.bias'\]"):
        mmdet.apis.init_detector(config, str(weights), device='cpu')


@checked
@pytest.mark.parametrize('content, message', [(b'', 'is empty'), (b'<!DOCTYPE html>', 'is a web page'),
                                              (b'PK\x03\x04half', 'is truncated')])
def test_what_is_no_checkpoint(tmp_path, content, message):
    _, config, weights, _ = detector_file(tmp_path, 'knet_instance_trained')
    weights.write_bytes(content)
    for load in (mmdet.apis.init_detector, mmdet.apis.DetInferencer):
        with pytest.raises(CheckpointError, match=f'official.pth {message}'):
            load(str(config), str(weights), device='cpu')


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).touch, (self.path, )


@checked
def test_a_file_runs_no_code_unless_trusted(tmp_path, monkeypatch):
    _, config, weights, _ = detector_file(tmp_path, 'knet_instance_trained')
    torch.save(dict(torch.load(weights, weights_only=True), extra=Touch(tmp_path / 'touched')), weights)
    with pytest.raises(CheckpointError, match='asks for code to be executed .* KNET_TRUST_CHECKPOINTS=1'):
        mmdet.apis.init_detector(config, str(weights), device='cpu')
    assert not (tmp_path / 'touched').exists()
    monkeypatch.setenv('KNET_TRUST_CHECKPOINTS', '1')
    mmdet.apis.init_detector(config, str(weights), device='cpu')
    assert (tmp_path / 'touched').exists()


@checked
def test_other_checkpoints_of_the_hosts(tmp_path, monkeypatch):
    """What is no dict, tensors of any device, and a home directory."""
    monkeypatch.setenv('HOME', str(tmp_path))
    torch.save(torch.arange(3), tmp_path / 'tensor.pth')
    for name in ('~/tensor.pth', str(tmp_path / 'tensor.pth')):
        loaded = CheckpointLoader.load_checkpoint(name, map_location=torch.device('cpu'))
        assert torch.equal(loaded, torch.arange(3))
    # The file may be written anew while its tensors are in use.
    (tmp_path / 'tensor.pth').write_bytes(b'')
    assert loaded.tolist() == [0, 1, 2]


@checked
def test_downloads_are_checked_too(tmp_path, monkeypatch):
    (tmp_path / 'site').mkdir()
    torch.save(dict(state_dict={'a': torch.ones(1)}), tmp_path / 'site/good.pth')
    torch.save(dict(extra=Touch(tmp_path / 'touched')), tmp_path / 'site/bad.pth')
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=tmp_path / 'site')

        def log_message(self, *args):
            pass

    (tmp_path / 'site/late.pth').write_bytes(b'<html>busy</html>')
    (tmp_path / 'site/named-00000000.pth').write_bytes((tmp_path / 'site/good.pth').read_bytes())
    with ThreadingHTTPServer(('127.0.0.1', 0), Quiet) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f'http://127.0.0.1:{server.server_port}'
        for _ in range(2):
            assert CheckpointLoader.load_checkpoint(f'{address}/good.pth')['state_dict']['a'] == 1
        with pytest.raises(CheckpointError, match='bad.pth asks for code'):
            CheckpointLoader.load_checkpoint(f'{address}/bad.pth')
        with pytest.raises(CheckpointError, match='late.pth: .*late.pth is a web page'):
            CheckpointLoader.load_checkpoint(f'{address}/late.pth')
        shutil.copy(tmp_path / 'site/good.pth', tmp_path / 'site/late.pth')
        assert CheckpointLoader.load_checkpoint(f'{address}/late.pth')['state_dict']['a'] == 1
        with pytest.raises(CheckpointError, match='named-00000000.pth: invalid hash value'):
            CheckpointLoader.load_checkpoint(f'{address}/named-00000000.pth')
        with pytest.raises(CheckpointError, match='nowhere.pth: .*404'):
            CheckpointLoader.load_checkpoint(f'{address}/nowhere.pth')
        server.shutdown()
    assert not (tmp_path / 'touched').exists()
    assert CheckpointLoader.load_checkpoint(f'{address}/good.pth')['state_dict']['a'] == 1  # kept
