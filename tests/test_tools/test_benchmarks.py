"""Every benchmark runs once, at its smallest size."""

import argparse

import benchmark_worker
import compare_heads
import decode_heads
import learning
import pytest
import torch
from cases import BEFORE, MODES, OURS, detectors, post_processing, segmentors, stages, training

CPU = torch.device('cpu')
SIZES = ((256, 320), (256, 310), (128, 155))  # smaller ones lack the places for 100 instances


@pytest.mark.parametrize('contender', [OURS, stages.MMSEG])
@pytest.mark.parametrize('channels', [256, 512])
def test_stages(contender, channels):
    measured = stages.build(contender, 3, channels, (8, 8), True, CPU)
    assert benchmark_worker.measure_seconds(measured, CPU) > 0
    memory = benchmark_worker.measure_memory(measured, CPU)
    assert memory['peak'] > memory['kept'] >= 3 * 2 * 3 * 64 * 4 / 2**20  # three stages' logits of two images


@pytest.mark.parametrize('masks', ['blobs', 'noise'])
@pytest.mark.parametrize('panoptic', [False, True])
def test_post_processing(panoptic, masks):
    ours, official = (post_processing.build(contender, panoptic, masks, SIZES, CPU).step()
                      for contender in (OURS, post_processing.OFFICIAL))
    ours, official = (ours[0]['pan_results'].sem_seg[0], official) if panoptic else (
        ours[0]['ins_results'].masks, official[2])
    assert (ours != official).float().mean() < 1e-3  # rounding may decide single pixels


@pytest.mark.parametrize(('config', 'with_cp', 'points'), [
    (training.INSTANCE, False, None), (training.PANOPTIC, True, 16)])
def test_training(config, with_cp, points):
    training.build(config, 2, with_cp, (64, 96), CPU, points).step()


@pytest.mark.parametrize('name', [OURS, *(pytest.param(n, marks=pytest.mark.slow) for n in [*detectors.CONFIGS][1:])])
def test_detectors(name):
    assert len(detectors.build(detectors.CONFIGS[name], name == OURS, SIZES, CPU).step()) == 100


@pytest.mark.parametrize('name', segmentors.CONFIGS)
def test_segmentors(name):
    result, = segmentors.build(segmentors.CONFIGS[name], (64, 64), CPU).step()
    assert result.pred_sem_seg.shape == (64, 64)


def test_decode_and_compare_heads(tmp_path):
    fast = decode_heads.Algorithm('Fast-SCNN', 'fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024', (64, 64))
    assert decode_heads.try_algorithm(fast)['works'] == 'yes'
    args = argparse.Namespace(data_root=tmp_path, work_dir=tmp_path, iterations=100)
    plain, knet = (compare_heads.run_config('Segmenter', with_knet, args, 0) for with_knet in (False, True))
    assert knet.model.decode_head.kernel_generate_head == plain.model.decode_head


@pytest.mark.parametrize('model', learning.MODELS['shapes'])
def test_learning(tmp_path, model):
    args = argparse.Namespace(case='shapes', data=tmp_path, task='panoptic', work_dir=tmp_path)
    cfg = learning.run_config(args, model, seed=3)
    learning.set_length(cfg, 20)
    assert [scheduler.end for scheduler in cfg.param_scheduler] == [2, 20]
    assert str(tmp_path) in cfg.val_dataloader.dataset.data_root and cfg.randomness.seed == 3


def test_every_goal_has_its_contender():
    assert all(mode.goals.keys() <= {BEFORE}.union(*mode.settings.values()) for mode in MODES.values())
