"""What our data sets and metrics take as it is, is no error."""

import json
import shutil

import pytest
from check_data_files import (
    CLASSES,
    STUFF,
    THINGS,
    instance_config,
    panoptic_config,
    write_instances,
    write_json,
    write_panoptic,
)
from check_data_files import instances as coco_instances

from knet_plugin.datasets.check import check_config


def messages(findings):
    return '\n'.join(map(str, findings))


def edit(root, function, *sections):
    for section in sections or ('train', 'val'):
        data = json.loads((root / f'{section}.json').read_text())
        function(data)
        write_json(root / f'{section}.json', data)


def instances(root):
    write_instances(root)
    return instance_config(root, 'knet_plugin.InstanceDataset', 'knet_plugin.InstanceMetric')


def panoptic(root):
    write_panoptic(root)
    return panoptic_config(root, 'knet_plugin.PanopticDataset', 'knet_plugin.PanopticMetric')


def without_metainfo(cfg):
    for name in ('train_dataloader', 'val_dataloader'):
        cfg[name].dataset.pop('metainfo')


@pytest.mark.parametrize('make', [instances, panoptic])
@pytest.mark.parametrize('metainfo', [True, False])
def test_good_data(tmp_path, make, metainfo):
    cfg = make(tmp_path)
    if not metainfo:
        without_metainfo(cfg)
    report = check_config(cfg)
    assert (report.errors, report.warnings) == ([], [])
    assert list(report.census[0].objects) == list(THINGS if make is instances else CLASSES)
    cfg.model.panoptic_head.num_things_classes = 80
    assert 'num_things_classes=80' in messages(check_config(cfg).errors)


@pytest.mark.parametrize('make', [instances, panoptic])
def test_classes_in_another_order_in_the_validation_data(tmp_path, make):
    cfg = make(tmp_path)
    cfg.val_dataloader.dataset.metainfo.classes = (*reversed(THINGS), *cfg.val_dataloader.dataset.metainfo.classes[2:])
    error, = check_config(cfg).errors
    assert all(word in error.message for word in ('label 0', "'dog' in the val data", "'cat' in the train data"))


@pytest.mark.parametrize('segmentation', [[], [[]], None, [[1, 1, 5, 5]], dict(size=[1, 1], counts=[1])])
def test_objects_without_a_mask_are_counted(tmp_path, segmentation):
    cfg = instances(tmp_path)
    edit(tmp_path, lambda data: [each.update(segmentation=segmentation) for each in data['annotations'][:2]])
    report = check_config(cfg)
    assert report.errors == []
    assert {finding.count for finding in report.warnings} == {2}
    assert sorted(finding.file for finding in report.warnings) == [f'{tmp_path}/train.json', f'{tmp_path}/val.json']
    assert sum(report.census[0].objects.values()) == 4


def swap(data):
    data['categories'].reverse()


def other_ids(data):
    for category in data['categories']:
        category['id'] *= 7
    for each in data['annotations']:
        for item in each.get('segments_info', [each]):
            item['category_id'] *= 7


def drop(*names):
    def apply(data):
        for each in data['annotations']:
            for item in each.get('segments_info', [each]):
                for name in names:
                    item.pop(name, None)
    return apply


@pytest.mark.parametrize('make', [instances, panoptic])
@pytest.mark.parametrize('function', [swap, other_ids, drop('iscrowd'), drop('area', 'bbox')])
def test_odd_files(tmp_path, make, function):
    cfg = make(tmp_path)
    edit(tmp_path, function)
    report = check_config(cfg)
    assert (report.errors, report.warnings) == ([], [])


@pytest.mark.parametrize('root', [dict(id=0, name='pets'), dict(id=0, name='cat')])
def test_root_category(tmp_path, root):
    cfg = instances(tmp_path)

    def add(data):
        for category in data['categories']:
            category['supercategory'] = 'pets'
        data['categories'].insert(0, dict(root, supercategory='none'))

    edit(tmp_path, add)
    report = check_config(cfg)
    assert report.errors == []
    assert root['name'] in messages(report.warnings)


def drop_isthing(data):
    for category in data['categories']:
        category.pop('isthing')


def test_panoptic_files(tmp_path):
    cfg = panoptic(tmp_path)
    for name in ('train_dataloader', 'val_dataloader'):
        cfg[name].dataset.metainfo.classes = STUFF + THINGS
    (tmp_path / 'panoptic/sub').mkdir()

    def move(data):
        for each in data['annotations']:
            path = tmp_path / 'panoptic' / each['file_name']
            each['file_name'] = f'sub/seg_{each["file_name"]}'
            if path.exists():
                path.rename(tmp_path / 'panoptic' / each['file_name'])

    for function in (drop_isthing, move):
        edit(tmp_path, function)
    report = check_config(cfg)
    assert (report.errors, report.warnings) == ([], [])
    (tmp_path / 'panoptic/sub/seg_1.png').unlink()
    assert '1 of 3 panoptic PNGs' in messages(check_config(cfg).errors)


def test_unknown_things(tmp_path):
    cfg = panoptic(tmp_path)
    without_metainfo(cfg)
    edit(tmp_path, drop_isthing)
    report = check_config(cfg)
    assert "'cat'" in messages(report.errors)
    assert 'train.json' in messages(report.errors)


def rename(*names):
    def apply(data):
        for category, name in zip(data['categories'], names, strict=False):
            category['name'] = name
    return apply


def reverse_isthing(data):
    data['categories'][0]['isthing'] = 0


@pytest.mark.parametrize(('make', 'function', 'words', 'stops'), [
    (instances, rename('CAT', 'DOG'), ['none of the classes', 'cat, dog', 'CAT, DOG'], True),
    (instances, rename('cat', 'dogs'), ["'dog'", "did you mean 'dogs'"], False),
    (panoptic, rename('CAT', 'DOG', 'SKY', 'SEA'), ['none of the classes', 'CAT, DOG'], True),
    (panoptic, rename('cat', 'dog', 'hill'), ["'sky'"], False),
    (panoptic, reverse_isthing, ["'cat' has isthing=0"], True)])
def test_classes_of_a_metric_with_its_own_file(tmp_path, make, function, words, stops):
    cfg = make(tmp_path)
    shutil.copy(tmp_path / 'val.json', tmp_path / 'metric.json')
    cfg.val_evaluator.ann_file = f'{tmp_path}/metric.json'
    assert check_config(cfg).text() == check_config(make(tmp_path)).text()
    edit(tmp_path, function, 'metric')
    report = check_config(cfg)
    finding, = report.errors if stops else report.warnings
    assert len(report.errors + report.warnings) == 1
    assert finding.file == f'{tmp_path}/metric.json'
    assert all(word in finding.message for word in words)


def test_an_instance_metric_needs_no_stuff(tmp_path):
    cfg = panoptic(tmp_path)
    write_json(tmp_path / 'metric.json', coco_instances())
    cfg.val_evaluator = dict(type='knet_plugin.InstanceMetric', ann_file=f'{tmp_path}/metric.json')
    assert check_config(cfg).warnings == []
    edit(tmp_path, rename('cat', 'cow'), 'metric')
    warning, = check_config(cfg).warnings
    assert "'dog'" in warning.message


@pytest.mark.parametrize('make', [instances, panoptic])
def test_validation_data_that_judges_nothing(tmp_path, make):
    cfg = make(tmp_path)
    edit(tmp_path, lambda data: data.update(annotations=[]), 'val')
    report = check_config(cfg)
    assert report.errors == []
    assert f'{tmp_path}/val.json: no object of any class in the validation data' in messages(report.warnings)


@pytest.mark.parametrize('make', [instances, panoptic])
def test_a_class_in_the_training_data_alone(tmp_path, make):
    def remove(data):
        for each in data['annotations']:
            each['segments_info'] = each.get('segments_info', [])[1:]
        if make is instances:
            data['annotations'] = [each for each in data['annotations'] if each['category_id'] != 1]
            for each in data['annotations']:
                each.pop('segments_info')

    cfg = make(tmp_path)
    edit(tmp_path, remove, 'val')
    report = check_config(cfg)
    warning, = report.warnings
    assert (report.errors, warning.file, warning.count) == ([], f'{tmp_path}/val.json', 1)
    assert '1 classes occur in the training data' in warning.message and ': cat' in warning.message


def test_stuff_only_images_are_kept(tmp_path):
    cfg = panoptic(tmp_path)
    cfg.train_dataloader.dataset.filter_cfg = dict(filter_empty_gt=True)
    edit(tmp_path, lambda data: [each.update(segments_info=each['segments_info'][2:])
                                 for each in data['annotations'][:1]])
    report = check_config(cfg)
    assert (report.errors, report.warnings) == ([], [])
    assert report.census[0].images == 3


@pytest.mark.parametrize(('classes', 'words', 'stops'), [
    (('cats', 'dogs'), ['cats, dogs', 'cat, dog'], True), (('cat', 'dogs'), ["'dogs'", "did you mean 'dog'"], True),
    (('cat', 'hen'), ["'hen'"], False)])
def test_misspelt_classes(tmp_path, classes, words, stops):
    cfg = instances(tmp_path)
    for name in ('train_dataloader', 'val_dataloader'):
        cfg[name].dataset.metainfo.classes = classes
    report = check_config(cfg)
    assert all(word in messages(report.errors + report.warnings) for word in words)
    assert bool(report.errors) == stops
