"""Odd image files and annotations through the hosts' data sets and our loading into a training step."""

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hostile import LABEL_MAPS, numbers, seeds, shares, try_inputs
from hostile_files import (
    CLASSES,
    FORMATS,
    LABELS,
    OBJECTS,
    SEGMENTS,
    annotation,
    build,
    coco,
    panoptic,
    semantic,
    write_image,
)
from hostile_models import build_model, losses_of, make_batch, model_config, predictions_of
from hypothesis import strategies as st
from mmdet.registry import METRICS
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from mmseg.evaluation import IoUMetric
from torch import nn

from knet_plugin.datasets.loading import LoadImageFromFile

SIDES = [2, 3, 5, 8, 16, 31, 33, 50, 1]
DATA = dict(instance=coco, panoptic=panoptic, semantic=semantic)


@pytest.fixture(scope='module')
def models() -> dict[str, nn.Module]:
    """The small models, for the classes of these files."""
    built = {}
    for task in DATA:
        cfg = model_config(task)
        if task == 'semantic':
            cfg.model.decode_head.kernel_generate_head.num_classes = len(CLASSES)
        else:
            stuff = 2 if task == 'panoptic' else 0
            cfg.model.panoptic_head.update(num_things_classes=3, num_stuff_classes=stuff)
        built[task] = build_model(cfg)
    return built


@st.composite
def data_sets(draw: Any, task: str) -> dict:
    """One to three images."""
    formats = sorted(FORMATS)
    # mmseg squeezes label maps: those of one row or column are test_mmseg_refuses_label_maps_of_one_row's.
    side = st.sampled_from(SIDES[:-1] if task == 'semantic' else SIDES)
    images = []
    for _ in range(draw(st.integers(1, 3))):
        image = dict(format=draw(st.sampled_from(formats)),
                     size=(draw(side), draw(side)))
        if task == 'instance':
            image['objects'] = draw(st.lists(st.sampled_from(OBJECTS), max_size=6)) * draw(numbers(1, rare=20))
        elif task == 'panoptic':
            image['segments'] = draw(st.lists(st.sampled_from(SEGMENTS), max_size=8))
        else:
            image |= dict(labels=draw(st.sampled_from(sorted(LABELS))), label_map=draw(st.sampled_from(LABEL_MAPS)))
        images.append(image)
    return dict(images=images, seed=draw(seeds()))


def check_data_set(task: str, model: nn.Module, case: dict) -> None:
    """It loads as it was written, the losses are finite, and so are the predictions."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = DATA[task](Path(folder), case['images'], case['seed'])
        items = [dataset[i] for i in range(len(dataset))]
    assert len(items) == len(case['images'])
    for item, image in zip(items, case['images'], strict=True):
        assert item['inputs'].shape == (3, *image['size']) and item['inputs'].dtype == torch.uint8
        assert item['data_samples'].ori_shape == image['size']
    losses = losses_of(model, pseudo_collate(items))
    assert all(torch.as_tensor(value).isfinite().all() for value in losses.values())
    assert all(each.grad is None or each.grad.isfinite().all() for each in model.parameters())
    predictions_of(model, pseudo_collate(items[:1]))


@pytest.mark.parametrize('task', DATA)
@shares(6, 50)
def test_odd_files_train(task, count, models):
    def check_files(case: dict) -> None:
        check_data_set(task, models[task], case)

    try_inputs(check_files, data_sets(task), count)


# What the hosts decide, for the record.


@pytest.mark.parametrize('kind', FORMATS)
def test_every_image_becomes_8_bit_bgr(kind, tmp_path):
    """16 bits are cut to the upper 8, alpha is dropped, grey repeated, and EXIF's rotation applied."""
    size = (24, 40)
    path = tmp_path / f'0{FORMATS[kind]}'
    write_image(path, kind, *size, np.random.default_rng(0))
    colors = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = LoadImageFromFile()(dict(img_path=str(path)))['img']
    assert image.shape == (*size, 3) and image.dtype == np.uint8
    if kind in ('png', 'rgba'):
        assert np.array_equal(image, colors[..., ::-1])
    elif kind == 'uint16':  # written in OpenCV's order
        assert np.array_equal(image, colors)
    elif kind in ('grey16', 'grey', 'grey_alpha', 'bilevel'):
        assert (image == image[..., :1]).all()
        assert kind != 'grey16' or np.array_equal(image[..., 0], colors[..., 0])
    elif kind in ('jpg', 'exif'):
        assert np.abs(image - colors[..., ::-1].astype(int)).mean() < (60 if kind == 'jpg' else 20)


def test_size_in_the_annotations_is_that_of_the_turned_image(tmp_path):
    image = dict(format='exif', size=(20, 30), objects=['box'])
    (tmp_path / 'lying').mkdir()
    assert coco(tmp_path, [image], 0)[0]['inputs'].shape == (3, 20, 30)
    with pytest.raises(ValueError, match=r'0\.jpg: the file has 20 x 30 .*annotation file says 30 x 20'):
        coco(tmp_path / 'lying', [dict(image, said=(30, 20))], 0)[0]


def test_category_ids_with_holes_become_labels_without(tmp_path):
    objects = [dict(annotation('box', 20, 30, np.random.default_rng(0)), category_id=id) for id in (90, 3, 7, 4)]
    sample = coco(tmp_path, [dict(format='jpg', size=(20, 30), objects=objects)], 0)[0]['data_samples']
    assert sample.gt_instances.labels.tolist() == [2, 0, 1]  # 4 is no category


def test_crowds_are_no_objects_but_x(tmp_path):
    sample = coco(tmp_path, [dict(format='jpg', size=(20, 30), objects=['crowd'] * 3)], 0)[0]['data_samples']
    assert len(sample.gt_instances.labels) == 0 and len(sample.ignored_instances.labels) == 3
    folder = tmp_path / 'panoptic'
    folder.mkdir()
    sample = panoptic(folder, [dict(format='jpg', size=(20, 30), segments=['crowd'] * 3)], 0)[0]['data_samples']
    assert len(sample.gt_instances.labels) == 0 and (sample.gt_sem_seg.sem_seg < 3).any()


@pytest.mark.parametrize('objects', [[], ['crowd'], ['zero box']])
def test_filter_empty_gt_goes_by_the_annotations(objects, tmp_path):
    """Images without annotations are left out, those whose annotations cannot be used stay."""
    images = [dict(format='jpg', size=(40, 40), objects=each) for each in (objects, ['box'])]
    dataset = coco(tmp_path, images, 0)
    cfg = dict(type='CocoDataset', ann_file='coco.json', data_root=f'{tmp_path}/', data_prefix=dict(img=''),
               metainfo=dataset.metainfo, filter_cfg=dict(filter_empty_gt=True))
    assert len(build(cfg, 'mmdet')) == (2 if objects else 1)


def test_annotation_ids_have_to_be_unique(tmp_path):
    objects = [dict(annotation('box', 20, 30, np.random.default_rng(0)), id=5)] * 2
    with pytest.raises(AssertionError, match=r'Annotation ids in .*coco\.json.* are not unique'):
        coco(tmp_path, [dict(format='jpg', size=(20, 30), objects=objects)], 0)


def test_segment_ids_have_to_be_unique(tmp_path):
    dataset = panoptic(tmp_path, [dict(format='jpg', size=(20, 30), segments=['thing'], times=2)], 0)
    with pytest.raises(ValueError, match=r'0\.png.*250'):
        dataset[0]


def test_unknown_category_of_a_segment_stops_mmdet(tmp_path):
    image = dict(format='jpg', size=(20, 30), segments=['thing'], changes=dict(category_id=5))
    with pytest.raises(KeyError, match='5'):
        panoptic(tmp_path, [image], 0)


def label_map(root, **changes):
    image = dict(format='jpg', size=(20, 30), labels='uint16', label_map='noise') | changes
    return semantic(root, [image], 0)[0]['data_samples'].gt_sem_seg.data


def test_mmseg_cuts_labels_to_8_bits(tmp_path):
    labels = label_map(tmp_path)
    path = tmp_path / 'png/0.png'
    cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.uint16) + 256)
    cfg = dict(type='BaseSegDataset', data_root=f'{tmp_path}/', data_prefix=dict(img_path='img', seg_map_path='png'),
               img_suffix='.img', metainfo=dict(classes=CLASSES),
               pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')])
    assert torch.equal(build(cfg, 'mmseg')[0]['data_samples'].gt_sem_seg.data, labels)


@pytest.mark.parametrize('size', [(1, 30), (20, 1), (1, 1)])
def test_mmseg_refuses_label_maps_of_one_row(size, tmp_path):
    with pytest.raises(AssertionError, match='The dim of value must be 2 or 3'):
        label_map(tmp_path, size=size)


def test_label_map_of_another_size_than_its_image(models, tmp_path):
    image = dict(format='jpg', size=(20, 30), labels='uint8', label_map='noise', png_size=(10, 30))
    item = semantic(tmp_path, [image], 0)[0]
    with pytest.raises(ValueError, match=r'size of its image, \(32, 32\) after padding, got \(22, 32\) from .*0\.png'):
        losses_of(models['semantic'], pseudo_collate([item]))


@pytest.mark.parametrize('task', DATA)
def test_batch_norm_needs_more_than_one_value(task):
    """A single image of 1 x 1 leaves one value per channel: torch says so."""
    cfg = model_config(task)
    cfg.model.backbone.norm_eval = False
    image = dict(size=(1, 1), masks=['whole'], label_map='constant')
    if task == 'semantic':
        cfg.model.data_preprocessor.size_divisor = 1
    batch = make_batch(task, [image], torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        losses_of(build_model(cfg), batch)


@pytest.mark.parametrize('objects', [[], ['crowd'], ['box', 'crowd', 'rle empty']])
def test_evaluation_of_images_with_little_to_find(objects, models, tmp_path):
    dataset = coco(tmp_path, [dict(format='grey', size=(33, 50), objects=objects)] * 2, 0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        metric = METRICS.build(dict(type='CocoMetric', ann_file=f'{tmp_path}/coco.json', metric=['segm']))
    metric.dataset_meta = dataset.metainfo
    for item in dataset:
        results = predictions_of(models['instance'], pseudo_collate([item]))
        metric.process({}, [result.to_dict() for result in results])
    assert metric.evaluate(2)['coco/segm_mAP'] <= (1 if 'box' in objects else -1)  # -1: nothing to find


def test_evaluation_without_labels(models, tmp_path):
    images = [dict(format='rgba', size=(33, 50), labels='uint8', label_map='ignored')] * 2
    dataset = semantic(tmp_path, images, 0)
    metric = IoUMetric()
    metric.dataset_meta = dataset.metainfo
    for item in dataset:
        results = predictions_of(models['semantic'], pseudo_collate([item]))
        metric.process({}, [result.to_dict() for result in results])
    assert np.isnan(metric.evaluate(2)['mIoU'])


@pytest.mark.parametrize(('segments', 'expected'), [
    (['thing', 'stuff', 'crowd'], nullcontext()),
    (['crowd'], pytest.raises(ZeroDivisionError)),  # panopticapi, where nothing is to be found, nor was found
])
def test_panoptic_evaluation_of_images_with_little_to_find(segments, expected, models, tmp_path):
    dataset = panoptic(tmp_path, [dict(format='png', size=(33, 50), segments=segments)] * 2, 0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        metric = METRICS.build(dict(type='CocoPanopticMetric', ann_file=f'{tmp_path}/panoptic.json',
                                    seg_prefix=f'{tmp_path}/png', nproc=1))
    metric.dataset_meta = dataset.metainfo
    for item in dataset:
        results = predictions_of(models['panoptic'], pseudo_collate([item]))
        metric.process({}, [result.to_dict() for result in results])
    with expected:
        assert 0 <= metric.evaluate(2)['coco_panoptic/PQ'] <= 100
