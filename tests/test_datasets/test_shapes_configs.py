"""The configs read Shapes through the stock data set classes, and perfect predictions get perfect scores."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, METRICS, DefaultScope

from knet_plugin.datasets.shapes import CLASSES, PALETTE, STUFF_CLASSES, THING_CLASSES, make_shapes

CONFIGS = Path(__file__).parents[2] / 'configs/_base_/datasets'
COUNTS = {'train': 16, 'val': 12}
SCOPES = {'semantic': 'mmseg', 'instance': 'mmdet', 'panoptic': 'mmdet'}


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('shapes') / 'data'
    make_shapes(root, COUNTS['train'], COUNTS['val'], workers=0)
    return root


@pytest.fixture(params=list(SCOPES))
def task(request) -> Iterator[str]:
    with DefaultScope.overwrite_default_scope(SCOPES[request.param]):
        yield request.param


def load_config(task: str, data: str = 'shapes') -> Config:
    return Config.fromfile(CONFIGS / f'{data}_{task}.py')


def moved_to(root: str, value: Any) -> Any:
    """The config with another folder of the data, with its slash, in place of either."""
    if isinstance(value, dict):
        return {key: moved_to(root, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(moved_to(root, item) for item in value)
    return re.sub('^data/shapes(_clear)?/', lambda _: root, value) if isinstance(value, str) else value


def build_dataset(task: str, split: str, root: Path):
    return DATASETS.build({**load_config(task)[f'{split}_dataloader'].dataset, 'data_root': f'{root}/'})


def test_classes_and_colours_are_those_of_the_package(task):
    classes = THING_CLASSES if task == 'instance' else CLASSES
    config = load_config(task)
    assert tuple(config.metainfo.classes) == classes
    assert [tuple(colour) for colour in config.metainfo.palette] == list(PALETTE[:len(classes)])
    if task == 'panoptic':
        assert tuple(config.metainfo.thing_classes) == THING_CLASSES
        assert tuple(config.metainfo.stuff_classes) == STUFF_CLASSES


@pytest.mark.parametrize('split', ['train', 'val'])
def test_all_images_are_read_at_one_size(task, split, root):
    dataset = build_dataset(task, split, root)
    assert len(dataset) == COUNTS[split]
    shapes = {tuple(dataset[i]['inputs'].shape) for i in range(len(dataset))}
    assert shapes == {(3, 128, 128)}


def semantic_map(root: Path, sample) -> np.ndarray:
    """Class of each pixel from 0, 255 where unlabelled, (H, W)."""
    path = root / 'annotations/semantic_val' / f'{Path(sample.img_path).stem}.png'
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED) - 1  # uint8: 0 becomes 255


def test_semantic_ground_truth(root):
    with DefaultScope.overwrite_default_scope('mmseg'):
        for item in build_dataset('semantic', 'val', root):
            sample = item['data_samples']
            assert np.array_equal(sample.gt_sem_seg.data[0].numpy(), semantic_map(root, sample))


def test_instance_ground_truth(root):
    crowds = 0
    with DefaultScope.overwrite_default_scope('mmdet'):
        for item in build_dataset('instance', 'val', root):
            sample = item['data_samples']
            labels = semantic_map(root, sample)
            things = 0
            for instances in (sample.gt_instances, sample.ignored_instances):
                for mask, label, box in zip(instances.masks.masks, instances.labels.tolist(), instances.bboxes.tensor,
                                            strict=True):
                    assert (labels[mask > 0] == label).all()
                    rows, columns = np.nonzero(mask)
                    assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                    things += mask.sum()
            assert things == (labels < len(THING_CLASSES)).sum()
            crowds += len(sample.ignored_instances)
    assert crowds > 0


def test_panoptic_ground_truth(root):
    with DefaultScope.overwrite_default_scope('mmdet'):
        for item in build_dataset('panoptic', 'val', root):
            sample = item['data_samples']
            labels = semantic_map(root, sample)
            assert np.array_equal(sample.gt_sem_seg.sem_seg[0].numpy(), labels)
            masks = sample.gt_instances.masks.masks
            assert len(masks) == len(sample.gt_instances.labels) == len(sample.gt_instances.bboxes)
            for mask, label in zip(masks, sample.gt_instances.labels.tolist(), strict=True):
                assert (labels[mask > 0] == label).all()


@pytest.mark.parametrize('task', ['instance', 'panoptic'])
def test_clear_variant_differs_in_its_folder_only(task):
    usual, clear = load_config(task), load_config(task, 'shapes-clear')
    assert 'data/shapes/' not in clear.pretty_text
    moved = Config(moved_to('data/shapes_clear/', usual.to_dict()))
    if task == 'panoptic':  # and it is asked all three questions
        moved.val_evaluator = [
            moved.val_evaluator,
            dict(type='CocoMetric', ann_file='data/shapes_clear/annotations/instances_val.json', metric='segm'),
            dict(type='SemSegMetric')
        ]
        moved.test_evaluator = moved.val_evaluator
    assert clear.to_dict() == moved.to_dict()


def perfect_prediction(task: str, sample) -> dict:
    """The ground truth of a sample in the form of a prediction."""
    if task == 'semantic':
        return {'pred_sem_seg': {'data': sample.gt_sem_seg.data.clone()}}
    things = sample.gt_instances
    masks = torch.from_numpy(things.masks.masks.astype(bool)).reshape(-1, *sample.ori_shape)
    if task == 'instance':
        return {'pred_instances': {'masks': masks, 'labels': things.labels, 'bboxes': things.bboxes.tensor,
                                   'scores': torch.ones(len(masks))}}
    # mmdet numbers a segment class + 1000 * instance, and calls unlabelled what is of no class.
    panoptic = sample.gt_sem_seg.sem_seg[0].long().clone()
    panoptic[panoptic == 255] = len(CLASSES)
    for number, (mask, label) in enumerate(zip(masks, things.labels.tolist(), strict=True), start=1):
        panoptic[mask] = label + 1000 * number
    return {'pred_panoptic_seg': {'sem_seg': panoptic[None]}}


def test_perfect_predictions_get_perfect_scores(task, root):
    dataset = build_dataset(task, 'val', root)
    metric = METRICS.build(moved_to(f'{root}/', load_config(task).val_evaluator))
    metric.dataset_meta = dataset.metainfo
    for item in dataset:
        sample = item['data_samples']
        metric.process({}, [{**sample.to_dict(), **perfect_prediction(task, sample)}])
    scores = metric.evaluate(len(dataset))
    key, best = {
        'semantic': ('mIoU', 100),
        'instance': ('coco/segm_mAP', 1),
        'panoptic': ('coco_panoptic/PQ', 100),
    }[task]
    assert scores[key] == pytest.approx(best)


def test_perfect_predictions_answer_all_three_questions(root):
    """The list of metrics, each of which reads its own part of what one pass predicts."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = build_dataset('panoptic', 'val', root)
        evaluator = Evaluator(moved_to(f'{root}/', load_config('panoptic', 'shapes-clear').val_evaluator))
        evaluator.dataset_meta = dataset.metainfo
        for item in dataset:
            sample = item['data_samples']
            classes = {'pred_sem_seg': {'sem_seg': sample.gt_sem_seg.sem_seg.clone()}}
            evaluator.process([{**sample.to_dict(), **perfect_prediction('panoptic', sample),
                                **perfect_prediction('instance', sample), **classes}], {})
        scores = evaluator.evaluate(len(dataset))
    assert [scores[key] for key in ('coco_panoptic/PQ', 'coco/segm_mAP', 'mIoU')] == pytest.approx([100, 1, 100])
