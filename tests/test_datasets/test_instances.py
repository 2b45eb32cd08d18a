import json
import pickle
from typing import Any

import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from mmengine.registry import DATASETS, DefaultScope
from odd_data import odd_data

from knet_plugin.datasets.instances import InstanceDataset

PIPELINE = [dict(type='knet_plugin.LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='PackDetInputs')]


def load(root, **options: Any) -> InstanceDataset:
    cfg = dict(type='knet_plugin.InstanceDataset', data_root=f'{root}/', ann_file='instances.json',
               data_prefix=dict(img=''), pipeline=PIPELINE) | options
    with DefaultScope.overwrite_default_scope('mmdet'):
        return DATASETS.build(cfg)


def labels(dataset: InstanceDataset) -> list:
    names = dataset.metainfo['classes']
    return [[names[i] for i in dataset[k]['data_samples'].gt_instances.labels] for k in range(len(dataset))]


def test_same_as_mmdet(shapes):
    """With the classes in the order of the file."""
    names = [category['name'] for category in json.loads((shapes / 'annotations/instances_train.json').read_text())[
        'categories']]
    options = dict(ann_file='annotations/instances_train.json', data_prefix=dict(img='train/'),
                   metainfo=dict(classes=names), filter_cfg=dict(filter_empty_gt=True, min_size=32))
    ours, stock = load(shapes, **options), load(shapes, type='CocoDataset', **options)
    assert len(ours) == len(stock) > 0
    for i in range(len(stock)):
        assert ours.get_data_info(i) == stock.get_data_info(i)


@pytest.mark.parametrize('classes', [('cat', 'dog'), ('dog', 'cat'), ('cow', 'dog', 'horse', 'cat'), None])
def test_labels_follow_classes(tmp_path, classes):
    dataset = load(odd_data(tmp_path), metainfo=classes and dict(classes=classes))
    assert dataset.metainfo['classes'] == (classes or ('cat', 'dog'))
    assert labels(dataset) == [['cat', 'dog', 'cat'], [], ['cat', 'dog', 'cat'], []]


def test_classes_that_are_a_part_of_the_file(tmp_path):
    assert labels(load(odd_data(tmp_path), metainfo=dict(classes=['dog'])))[:2] == [['dog'], []]


def test_classes_of_coco_have_its_colours(tmp_path):
    names = CocoDataset.METAINFO['classes']
    root = odd_data(tmp_path, edit=lambda content: content.update(annotations=[], categories=[
        dict(id=i, name=name) for i, name in enumerate(names)]))
    assert load(root).metainfo == CocoDataset.METAINFO
    assert load(root, lazy_init=True).metainfo == dict(palette=CocoDataset.METAINFO['palette'])
    assert InstanceDataset.METAINFO == CocoDataset.METAINFO  # for weights without classes


@pytest.mark.parametrize('classes', [('person',), ('Cat', 'Dog'), 'cat'])
def test_classes_of_another_data_set(tmp_path, classes):
    with pytest.raises(ValueError, match=r"metainfo\.classes .*instances\.json.*\['cat', 'dog'\]"):
        load(odd_data(tmp_path), metainfo=dict(classes=classes))


@pytest.mark.parametrize('segmentation', [[], [[]], None, [[1, 1, 2, 2]], dict(size=[1, 1], counts=[1])])
def test_objects_that_cannot_be_drawn(tmp_path, log, segmentation):
    def edit(content):
        content['annotations'][1]['segmentation'] = segmentation

    assert labels(load(odd_data(tmp_path, edit=edit)))[0] == ['cat', 'cat']
    assert [line for line in log if 'instances.json: 1 objects' in line] == log


def test_missing_values(tmp_path):
    def edit(content):
        for annotation in content['annotations']:
            for key in ('iscrowd', 'area', 'bbox', 'id'):
                annotation.pop(key, None)

    expected = load(odd_data(tmp_path / 'a'))
    dataset = load(odd_data(tmp_path / 'b', edit=edit))
    assert labels(dataset) == labels(expected)
    for i in range(len(dataset)):
        boxes = [each[i]['data_samples'].gt_instances.bboxes.tensor for each in (dataset, expected)]
        assert np.array_equal(*boxes)


def test_dropped_images_are_counted(tmp_path, log):
    dataset = load(odd_data(tmp_path), filter_cfg=dict(filter_empty_gt=True))
    assert len(dataset) == 2
    assert ['2 of 4 images' in line for line in log] == [True]


def test_workers_get_the_data_set(tmp_path):
    dataset = pickle.loads(pickle.dumps(load(odd_data(tmp_path))))
    assert len(dataset) == 4 and labels(dataset)[0]


def test_panoptic_file(tmp_path):
    with pytest.raises(ValueError, match=r'panoptic\.json.*knet_plugin\.PanopticDataset'):
        load(odd_data(tmp_path), ann_file='panoptic.json')


@pytest.mark.parametrize('filter_cfg', [None, dict(filter_empty_gt=False, min_size=1)])
def test_file_without_objects(tmp_path, filter_cfg):
    root = odd_data(tmp_path, edit=lambda content: content.pop('annotations'))
    assert labels(load(root, filter_cfg=filter_cfg)) == [[], [], [], []]
