"""The detector in mmdet's own runner, visualizer, inferencer and tools, on Shapes."""

import json
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import mmdet
import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmengine.config import Config

from knet_plugin.cli import resolve_config
from knet_plugin.datasets.shapes import make_shapes

DATA = 'data/shapes_clear'  # where the config looks, from the folder that the commands run in
SMALL = 'knet-s3_r18-s_fpn_1xb8-adamw-1k_shapes-panoptic-128x128'
NARROW = {
    'model.backbone.base_channels': 8, 'model.neck.in_channels': [8, 16, 32, 64], 'train_cfg.max_iters': 3,
    'train_cfg.val_interval': 3, 'default_hooks.checkpoint.interval': 3, 'train_dataloader.batch_size': 3,
    # mmdet's visualizer can draw neither a panoptic map without any segment nor instances of which each is empty, both
    # of which a model after three iterations yields.
    'model.test_cfg.instance_score_thr': 0.0, 'model.test_cfg.overlap_thr': 0.0, 'model.test_cfg.mask_thr': 0.0,
    'randomness.seed': 0
}


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A config on made-up images and what three iterations of ``python -m knet_plugin train`` make of it."""
    root = tmp_path_factory.mktemp('detector')
    make_shapes(root / DATA, 6, 4)
    cfg = Config.fromfile(resolve_config(SMALL))
    cfg.merge_from_dict(NARROW)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    cfg.vis_backends = [dict(type='LocalVisBackend')]
    cfg.dump(root / 'small.py')
    done = subprocess.run([sys.executable, '-m', 'knet_plugin', 'train', 'small.py', '--work-dir', 'work'], cwd=root,
                          capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return root, done.stdout + done.stderr


def test_one_run_measures_all_three_tasks(trained):
    root, _ = trained
    last = json.loads((root / 'work/validations.jsonl').read_text().splitlines()[-1])
    assert {'coco_panoptic/PQ', 'coco/segm_mAP', 'mIoU'} <= last.keys()


def test_testing_the_checkpoint_measures_the_same_and_draws(trained):
    root, output = trained
    done = subprocess.run([sys.executable, '-m', 'knet_plugin', 'test', 'small.py', 'work/iter_3.pth', '--work-dir',
                           'tested', '--show-dir', 'drawn', '--out', 'results.pkl'], cwd=root, capture_output=True,
                          text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    figures = [json.loads(path.read_text()) for path in (root / 'tested').glob('*/*.json')][-1]
    scalars = list((root / 'work').glob('*/vis_data/scalars.json'))[-1].read_text().splitlines()
    assert figures['mIoU'] == pytest.approx(json.loads(scalars[-1])['mIoU'], abs=1e-6) and figures['mIoU'] > 0
    # PQ and AP are 0 after three iterations; what they are computed from is what the loaded model predicts.
    model = init_detector(str(root / 'small.py'), str(root / 'work/iter_3.pth'), device='cpu')
    for dumped in pickle.loads((root / 'results.pkl').read_bytes()):
        instances = inference_detector(model, str(root / dumped['img_path'])).pred_instances
        # Alone, an image is rounded otherwise than in a batch, and a hard mask may gain or lose a pixel by that.
        torch.testing.assert_close(dumped['pred_instances']['scores'], instances.scores, rtol=1e-3, atol=1e-4)
        assert (dumped['pred_instances']['labels'] == instances.labels).float().mean() > .9  # equal scores may swap
    assert len(list((root / 'drawn').glob('*.jpg'))) == 4


def test_inferencer_draws_and_writes(trained):
    root, _ = trained
    image = root / DATA / 'val/000000.jpg'
    inferencer = DetInferencer(str(root / 'small.py'), str(root / 'work/iter_3.pth'), device='cpu',
                               show_progress=False)
    results = inferencer(str(image), out_dir=str(root / 'out'), no_save_pred=False, pred_score_thr=0.)
    prediction = results['predictions'][0]
    assert len(prediction['masks']) == len(prediction['bboxes']) == len(prediction['labels']) == 20
    drawn = cv2.imread(str(root / 'out/vis/000000.jpg'))
    assert drawn is not None and (drawn != cv2.imread(str(image))).any()
    assert json.loads((root / 'out/preds/000000.json').read_text())['labels'] == prediction['labels']


def test_functions_of_the_api(trained):
    root, _ = trained
    model = init_detector(str(root / 'small.py'), str(root / 'work/iter_3.pth'), device='cpu')
    assert model.dataset_meta['classes'][0] == 'warm_disk'
    image = np.random.default_rng(0).integers(0, 255, (90, 150, 3), dtype=np.uint8)
    result = inference_detector(model, image)
    assert result.pred_panoptic_seg.sem_seg.shape == result.pred_sem_seg.sem_seg.shape == (1, 90, 150)
    assert result.pred_instances.masks.shape[1:] == (90, 150)
    assert result.pred_instances.bboxes.shape == (len(result.pred_instances.labels), 4)


def test_analysis_tools_count_parameters_and_curves(trained):
    """mmdet's own scripts, where the host package brings them along."""
    root, _ = trained
    tools = Path(mmdet.__file__).parent / '.mim/tools/analysis_tools'
    if not tools.is_dir():
        pytest.skip('this mmdet comes without its tools')
    log = next((root / 'work').glob('*/vis_data/scalars.json'))
    commands = [['get_flops.py', str(root / 'small.py'), '--num-images', '1']]
    if find_spec('seaborn'):  # which mmdet itself does not ask for
        commands.append(['analyze_logs.py', 'plot_curve', str(log), '--keys', 's3.loss_dice', '--style', 'classic',
                         '--out', 'curve.png'])
    for command in commands:
        done = subprocess.run([sys.executable, str(tools / command[0]), *command[1:]], cwd=root, capture_output=True,
                              text=True)
        assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    assert (root / 'curve.png').exists() == (len(commands) == 2)
