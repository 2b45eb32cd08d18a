"""The configs read Shapes with the hosts' data sets, and perfect predictions get perfect scores."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, DefaultScope

from knet_plugin.datasets.shapes import CLASSES, PALETTE, STUFF_CLASSES, THING_CLASSES

CONFIGS = Path(__file__).parents[2] / 'configs/_base_/datasets'
SCOPES = {'shapes_semantic': 'mmseg', 'shapes-clear_instance': 'mmdet', 'shapes-clear_panoptic': 'mmdet'}


@pytest.fixture(params=list(SCOPES))
def name(request) -> Iterator[str]:
    with DefaultScope.overwrite_default_scope(SCOPES[request.param]):
        yield request.param


def load_config(name: str, root: Path) -> Config:
    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: moved(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(moved(item) for item in value)
        for folder in ('data/shapes_clear/', 'data/shapes/'):
            value = value.replace(folder, f'{root}/') if isinstance(value, str) else value
        return value

    return Config(moved(Config.fromfile(CONFIGS / f'{name}.py').to_dict()))


@pytest.mark.parametrize('variant', ['shapes', 'shapes-clear'])
@pytest.mark.parametrize('task', ['semantic', 'instance', 'panoptic'])
def test_classes_and_colours(task, variant):
    path = CONFIGS / f'{variant}_{task}.py'
    if not path.exists():  # mmseg has the usual variant only
        assert (variant, task) == ('shapes-clear', 'semantic')
        return
    cfg = Config.fromfile(path)
    classes = THING_CLASSES if task == 'instance' else CLASSES
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        assert tuple(loader.dataset.metainfo.classes) == classes
        assert loader.dataset.data_root == f'data/{variant.replace("-", "_")}/'
    assert [tuple(colour) for colour in cfg.metainfo.palette] == list(PALETTE[:len(classes)])
    if task == 'panoptic':
        assert tuple(cfg.metainfo.thing_classes) == THING_CLASSES
        assert tuple(cfg.metainfo.stuff_classes) == STUFF_CLASSES


@pytest.mark.parametrize(('split', 'count'), [('train', 16), ('val', 12)])
def test_all_images_are_read_at_one_size(name, split, count, shapes):
    dataset = DATASETS.build(load_config(name, shapes)[f'{split}_dataloader'].dataset)
    assert len(dataset) == count
    assert {tuple(dataset[i]['inputs'].shape) for i in range(count)} == {(3, 128, 128)}


def perfect_predictions(sample) -> dict:
    """Ground truth in the form of predictions."""
    if 'gt_instances' not in sample:
        return {'pred_sem_seg': {'data': sample.gt_sem_seg.data.clone()}}
    things = sample.gt_instances
    masks = torch.from_numpy(things.masks.masks.astype(bool)).reshape(-1, *sample.ori_shape)
    predictions = {'pred_instances': {'masks': masks, 'labels': things.labels, 'bboxes': things.bboxes.tensor,
                                      'scores': torch.ones(len(masks))}}
    if 'gt_sem_seg' in sample:
        # mmdet's segment ids are class + 1000 * instance, and the number of classes is void.
        panoptic = sample.gt_sem_seg.sem_seg[0].long().clone()
        panoptic[panoptic == 255] = len(CLASSES)
        for number, (mask, label) in enumerate(zip(masks, things.labels.tolist(), strict=True), start=1):
            panoptic[mask] = label + 1000 * number
        predictions |= {'pred_panoptic_seg': {'sem_seg': panoptic[None]},
                        'pred_sem_seg': {'sem_seg': sample.gt_sem_seg.sem_seg.clone()}}
    return predictions


def test_perfect_predictions_get_perfect_scores(name, shapes):
    cfg = load_config(name, shapes)
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    evaluator = Evaluator(cfg.val_evaluator)
    evaluator.dataset_meta = dataset.metainfo
    for item in dataset:
        sample = item['data_samples']
        evaluator.process([{**sample.to_dict(), **perfect_predictions(sample)}], {})
    scores = evaluator.evaluate(len(dataset))
    best = {'shapes_semantic': {'mIoU': 100}, 'shapes-clear_instance': {'coco/segm_mAP': 1},
            'shapes-clear_panoptic': {'coco_panoptic/PQ': 100, 'coco/segm_mAP': 1, 'mIoU': 100}}[name]
    assert {key: scores[key] for key in best} == pytest.approx(best)
