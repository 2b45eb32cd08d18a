"""Official files load without conversion, in every way that the hosts load files."""

import mmdet.apis
import mmseg.apis
import numpy as np
import pytest
import torch
from detection_cases import check_predictions
from golden import Golden, cases, detector_config
from mmengine.config import Config
from mmengine.runner.checkpoint import load_checkpoint
from segmentation_cases import check_segmentation, segmentor_config

from knet_plugin.checkpoint import CheckpointError
from knet_plugin.compat import release
from knet_plugin.engine.safe_loading import safe_loading
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


def test_nothing_fits(tmp_path):
    _, config, weights, _ = detector_file(tmp_path, 'knet_instance_trained')
    torch.save(dict(state_dict={'conv1.weight': torch.rand(2), 'fc.bias': torch.rand(1)}), weights)
    with pytest.raises(CheckpointError, match=r"begin with \['conv1.weight', 'fc.bias'\]"):
        mmdet.apis.init_detector(config, str(weights), device='cpu')


@checked
@pytest.mark.parametrize('content, message', [(b'', 'is empty'), (b'<!DOCTYPE html>', 'is a web page'),
                                              (b'PK\x03\x04half', 'is truncated')])
def test_what_is_no_checkpoint(tmp_path, content, message):
    _, config, weights, _ = detector_file(tmp_path, 'knet_instance_trained')
    weights.write_bytes(content)
    for load in (mmdet.apis.init_detector, mmdet.apis.DetInferencer):
        with pytest.raises(CheckpointError, match=f'official.pth {message}'), safe_loading():
            load(str(config), str(weights), device='cpu')
