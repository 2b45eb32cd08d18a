"""Ground truth of real images as prediction scores 100, with crowds and void regions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.datasets import CocoPanopticDataset
from mmdet.evaluation import CocoMetric, CocoPanopticMetric
from mmdet.registry import METRICS
from mmengine.registry import DefaultScope

from knet_plugin.detection import KNetFusionHead

SAMPLES = Path(__file__).resolve().parents[3] / 'shared/real_samples'
THINGS, STUFF = 80, 53
SURE = 20.  # a logit

pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason='no real images')


def load(folder):
    meta = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='knet_plugin.LoadPanopticAnnotations'),
        dict(type='PackDetInputs', meta_keys=meta)
    ]
    return CocoPanopticDataset(
        ann_file=str(folder / 'annotations/panoptic.json'),
        data_prefix=dict(img=str(folder / 'images'), seg=str(folder / 'annotations/panoptic')), test_mode=True,
        pipeline=pipeline)


def labelled_pixels(sample):
    """Pixels of objects and stuff, without crowds."""
    semantic = sample.gt_sem_seg.sem_seg
    objects = sample.gt_instances.masks.to_tensor(torch.bool, 'cpu').any(dim=0)
    return objects | (semantic >= THINGS) & (semantic < THINGS + STUFF)


def as_logits(sample):
    """Confident kernels for the annotated segments, and one without a class for all other pixels."""
    objects = sample.gt_instances.masks.to_tensor(torch.bool, 'cpu')
    semantic = sample.gt_sem_seg.sem_seg[0]
    stuff = torch.stack([semantic == THINGS + j for j in range(STUFF)])
    masks = torch.cat([objects, ~labelled_pixels(sample), stuff]).float() * 2 * SURE - SURE
    classes = torch.full((len(masks), THINGS + STUFF), -SURE)
    classes[range(len(objects)), sample.gt_instances.labels] = SURE
    classes[len(objects), 0] = -2  # a score of 0.12: void
    present = stuff.flatten(1).any(dim=1).nonzero()[:, 0]
    classes[len(objects) + 1 + present, THINGS + present] = SURE
    return classes[None], masks[None]


@pytest.mark.parametrize('name', ['coco', pytest.param('coco_train100', marks=pytest.mark.slow)])
def test_ground_truth_scores_100(name):
    folder = SAMPLES / name
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = load(folder)
        metrics = [
            CocoPanopticMetric(ann_file=str(folder / 'annotations/panoptic.json'),
                               seg_prefix=str(folder / 'annotations/panoptic/'), nproc=1),
            CocoMetric(ann_file=str(folder / 'annotations/instances.json'), metric=['segm', 'bbox']),
            METRICS.build(dict(type='SemSegMetric'))
        ]
        for metric in metrics:
            metric.dataset_meta = dataset.metainfo
        fusion = KNetFusionHead(THINGS, STUFF, dict(semantic_on=True))
        for i in range(len(dataset)):
            sample = dataset[i]['data_samples']
            sample.set_metainfo(dict(batch_input_shape=sample.img_shape))
            result, = fusion.predict(*as_logits(sample), [sample])
            sample.pred_panoptic_seg, sample.pred_instances = result['pan_results'], result['ins_results']
            # Every pixel is predicted, so unlabelled ones must not count.
            sample.gt_sem_seg.sem_seg = torch.where(labelled_pixels(sample), sample.gt_sem_seg.sem_seg, 255)
            sample.pred_sem_seg = result['sem_results']
            for metric in metrics:
                metric.process({}, [sample.to_dict()])
        figures = {key: value for metric in metrics for key, value in metric.evaluate(len(dataset)).items()}
    assert figures['coco_panoptic/PQ'] == pytest.approx(100, abs=1e-6)
    assert figures['coco/segm_mAP'] == pytest.approx(1, abs=1e-3)
    assert figures['coco/bbox_mAP'] == pytest.approx(1, abs=1e-3)
    assert figures['mIoU'] == pytest.approx(100, abs=1e-2)
    assert np.isfinite(list(figures.values())).all()
