"""Every benchmark runs once, at its smallest size."""

import argparse
from pathlib import Path

import benchmark_worker
import coco_folds
import cv2
import decode_heads
import evidence
import learning
import learning_models
import numpy as np
import pytest
import torch
from cases import BEFORE, MODES, OURS, detectors, post_processing, segmentors, stages, training
from mmengine.config import Config

from knet_plugin.datasets.panoptic_png import read_segment_ids, segment_colours

CPU = torch.device('cpu')
SIZES = ((256, 320), (256, 310), (128, 155))  # smaller ones lack the places for 100 instances


def first_is_fast(names):
    first, *others = names
    return [first, *(pytest.param(name, marks=pytest.mark.slow) for name in others)]


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


@pytest.mark.parametrize(('config', 'with_cp'), [(training.INSTANCE, False), (training.PANOPTIC, True)])
def test_training(config, with_cp):
    training.build(config, 2, with_cp, (64, 96), CPU).step()


@pytest.mark.parametrize('name', first_is_fast(detectors.CONFIGS))
def test_detectors(name):
    assert len(detectors.build(detectors.CONFIGS[name], name == OURS, SIZES, CPU).step()) == 100


@pytest.mark.parametrize('with_knet', [False, True])
@pytest.mark.parametrize('name', first_is_fast(segmentors.CONFIGS))
def test_segmentors(name, with_knet):
    result, = segmentors.build(segmentors.CONFIGS[name], with_knet, (64, 64), CPU).step()
    assert result.pred_sem_seg.shape == (64, 64)


def test_decode_heads():
    fast = decode_heads.Algorithm('Fast-SCNN', 'fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024', (64, 64))
    assert decode_heads.try_algorithm(fast)['works'] == 'yes'


@pytest.mark.parametrize('model', learning.MODELS['shapes'])
def test_learning(tmp_path, model):
    args = argparse.Namespace(case='shapes', data=tmp_path, task='panoptic', work_dir=tmp_path, iterations=20,
                              options={}, train_options=[], peer_rate=0.001, stage_rate=None)
    cfg = learning.run_config(args, model, seed=3)
    learning.set_length(cfg, 20)
    assert [scheduler.end for scheduler in cfg.param_scheduler] == [2, 20]
    assert str(tmp_path) in cfg.val_dataloader.dataset.data_root and cfg.randomness.seed == 3


def test_learning_puts_knet_on_heads(tmp_path, monkeypatch):
    monkeypatch.setattr(learning_models, 'mobilenet_v2', lambda: 'weights.pth')
    monkeypatch.setattr(learning_models, 'written_config', lambda args, *options: Config.fromfile(options[1]))
    args = argparse.Namespace(case='heads', task='semantic', stage_rate=0.3)
    models = learning_models.contenders(args)
    assert len(models) == 10
    for plain, knet in zip(models[::2], models[1::2], strict=True):
        plain, knet = (learning_models.model_config(args, model) for model in (plain, knet))
        assert knet.model.decode_head.kernel_generate_head == plain.model.decode_head
        assert knet.model.backbone == plain.model.backbone
        assert knet.optim_wrapper.paramwise_cfg.custom_keys['kernel_update_head'].lr_mult == 0.3


def row(model, options='', **values):
    return dict(data='d-0', task='panoptic', length='9', model=model, options=options, seed='0', iterations='9',
                cpu_seconds='1', **dict(dict.fromkeys(learning.METRICS, ''), **values))


def test_evidence_takes_the_mean_of_folds_and_gains():
    rows = [row('K-Net', PQ='1.0'), row('K-Net', PQ='2.0') | dict(data='d-1'), row('K-Net', 'a.b=1', PQ='9.0'),
            row('Mask2Former', PQ='1.0'), row('K-Net') | dict(length='5')]
    assert '| d, panoptic | K-Net | 2 | 9 | 1 | 1.5 (1 to 2) |' in evidence.peers(rows)
    assert evidence.peers(rows).count('K-Net') == 1  # nothing to compare the shorter run with
    rows = [row('FCN', mIoU='50.0'), row('FCN + K-Net', mIoU='51.5'), row('PSPNet', mIoU='50.0')]
    assert '| FCN + K-Net | 1 | 9 | 9 | 1 | 1 | 50.0 | 51.5 | +1.5 |' in evidence.heads(rows)
    assert 'PSPNet' not in evidence.heads(rows)


def test_evidence_does_not_mix_lengths_rates_and_options():
    rows = [row('K-Net', PQ='1.0'), row('K-Net', PQ='2.0') | dict(length='5'), row('K-Net', '--side 9', PQ='3.0'),
            row('Mask2Former', 'peer-rate 0.1', PQ='4.0'), row('Mask2Former', PQ='5.0')]
    rows += [row | dict(model='Mask R-CNN') for row in rows[1:3]]
    lines = evidence.peers(rows).splitlines()[2:]
    assert len(lines) == 7 and all('(' not in line for line in lines)
    rows = [row('FCN', mIoU='50.0'), row('FCN', mIoU='10.0') | dict(seed='1'), row('FCN + K-Net', mIoU='51.0'),
            row('FCN + K-Net', 'stage-rate 0.1', mIoU='52.0'), row('FCN + K-Net', mIoU='99.0') | dict(length='5')]
    assert [line.split('|')[-2].strip() for line in evidence.heads(rows).splitlines()[2:]] == ['+1.0', '+2.0', '+1.5']


@pytest.mark.parametrize('metric', ['AP', 'mIoU'])
def test_evidence_draws_what_there_is(metric, tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, 'PLOTS', tmp_path / 'plot.png')
    evidence.plot([])
    assert not (tmp_path / 'plot.png').exists()
    evidence.plot([row('K-Net', ' '.join(changes), **{metric: label})
                   for label, changes in evidence.ABLATIONS['4c'].changes.items()])
    assert (tmp_path / 'plot.png').stat().st_size > 1000


def test_others_get_the_time_of_the_first_model(monkeypatch):
    args = argparse.Namespace(case='own', data=Path('d-0'), task='panoptic', iterations=9, train_options=[])
    rows = [row('K-Net') | dict(cpu_seconds='10'), row('K-Net') | dict(cpu_seconds='20', seed='1'),
            row('K-Net', 'a=1') | dict(cpu_seconds='99'), row('K-Net') | dict(cpu_seconds='99', length='8')]
    monkeypatch.setattr(learning, 'read_rows', lambda: rows)
    assert learning.budget(args) == 15
    args.iterations = 7
    with pytest.raises(SystemExit, match='K-Net'):
        learning.budget(args)


def test_a_training_ends_with_its_cpu_time(monkeypatch):
    """Iterations that become slower are fewer, and validation does not count."""
    hook, planned = learning.CpuLimitHook(100), []
    monkeypatch.setattr(hook, '_plan', lambda runner, next_val, last: planned.append((next_val, last)))
    hook._estimate(None, done=10, elapsed=20, seconds=2)
    hook._estimate(None, done=30, elapsed=80, seconds=4)
    hook._estimate(None, done=36, elapsed=104, seconds=4)
    assert planned == [(50, 50), (35, 35), (36, 36)]


def test_evidence_compares_runs_that_all_rows_of_a_table_have():
    table = evidence.ABLATIONS['4c']
    rows = [row('K-Net', ' '.join(changes), mIoU=label, PQ='1.0', AP='1.0') for label, changes in table.changes.items()]
    rows += [row | dict(length='7', mIoU='99.0') for row in rows[:3]]  # other rows lack this length
    rows += [row | dict(data='d-1', mIoU='9.0') for row in rows[:5]] + [rows[0] | dict(seed='1', mIoU='99.0')]
    text = evidence.ablation_table(table, rows)
    assert text.startswith('d, 9 iterations:') and '| 5 | 2 | 1.0 (1 to 1) | 1.0 (1 to 1) | 7.0 (5 to 9) |' in text
    assert '99' not in text
    assert evidence.ablation_table(table, rows[:4]) == 'Not measured yet.'
    assert evidence.ablation_table(table, [*rows, *(row | dict(data='e-0') for row in rows)]).count('iterations:') == 2


def test_evidence_puts_each_option_beside_the_run_without_it():
    rows = [row('K-Net', '--side 9', AP='1.0'), row('K-Net', '--side 9', AP='2.0') | dict(seed='1'),
            row('K-Net', 'a.b=1 --side 9', AP='3.0'), row('K-Net', 'a.b=1 --side 9', AP='4.0') | dict(seed='1'),
            row('K-Net', 'c.d=1', AP='9.0')]
    text = evidence.gains(rows + [row('K-Net', 'model.panoptic_head.num_stages=1 --side 9', AP='5.0')])
    line, = text.splitlines()[2:]
    assert '| d, 9 iterations, --side 9 | K-Net | a.b=1 | 2 | - | - | 1.5 (1 to 2) -> 3.5 (3 to 4) | - |' in line


def test_every_goal_has_its_contender():
    assert all(mode.goals.keys() <= {BEFORE}.union(*mode.settings.values()) for mode in MODES.values())


def test_folds_join_the_stuff_of_a_supercategory(tmp_path):
    categories = [dict(id=1, name='person', supercategory='person', isthing=1),
                  dict(id=7, name='cat', supercategory='animal', isthing=1),
                  dict(id=8, name='dog', supercategory='animal', isthing=1),
                  dict(id=90, name='sand', supercategory='ground', isthing=0),
                  dict(id=91, name='road', supercategory='ground', isthing=0)]
    merged, number_of = coco_folds.supercategories(categories)
    assert [(each['id'], each['name'], each['isthing']) for each in merged] == [
        (1, 'animal', 1), (2, 'person', 1), (3, 'ground', 0)]
    ids = np.array([[11, 11, 12, 0], [13, 14, 14, 14]], np.int32)
    cv2.imwrite(str(tmp_path / 'a.png'), segment_colours(ids))
    segments = [dict(id=number, category_id=category, iscrowd=0) for number, category in zip(
        (11, 12, 13, 14), (7, 8, 90, 91), strict=True)]
    (tmp_path / 'out').mkdir()
    annotation = dict(image_id=3, file_name='a.png', segments_info=segments)
    annotation = coco_folds.merged_annotation(annotation, tmp_path / 'a.png', number_of, {3}, tmp_path / 'out')
    found = read_segment_ids(str(tmp_path / 'out/a.png'))
    cat, dog, ground = annotation['segments_info']  # two animals remain two objects
    assert [each['category_id'] for each in (cat, dog, ground)] == [1, 1, 3] and annotation['image_id'] == 3
    assert (found == [[cat['id']] * 2 + [dog['id'], 0], [ground['id']] * 4]).all()
    assert (ground['area'], ground['bbox']) == (4, [0, 1, 4, 1])


def test_own_iou_reads_the_semantic_map_of_both_kinds_of_models(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.array([[0, 0, 1, 255]], np.uint8))
    metric = learning_models.OwnIoUMetric(str(tmp_path))
    metric.dataset_meta = dict(classes=('sky', 'road'))
    found = torch.tensor([[[0, 1, 1, 0]]])
    sample = dict(img_path='elsewhere/a.jpg')
    metric.process({}, [sample | dict(pred_sem_seg=dict(sem_seg=found)),
                        sample | dict(pred_panoptic_seg=dict(semantic=found))])
    assert metric.evaluate(2)['mIoU'] == 50


def test_mask2former_gets_the_semantic_map_of_its_queries():
    head = learning_models.SemanticFusionHead(
        num_things_classes=1, num_stuff_classes=1, test_cfg=dict(
            iou_thr=0.8, filter_low_score=True, object_mask_thr=0.8, overlap_mask_thr=0.8))
    scores = torch.tensor([[9.0, 0, 0], [0, 9.0, 0], [0, 1.0, 0]])  # of the last class: nothing
    masks = torch.full((3, 1, 2), -9.0)
    masks[0, 0, 0] = masks[1, 0, 1] = masks[2, 0, 0] = 9.0
    assert head.panoptic_postprocess(scores, masks).semantic.tolist() == [[[0, 1]]]
