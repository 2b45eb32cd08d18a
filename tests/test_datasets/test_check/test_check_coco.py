"""Faults of COCO files: each change of good data gives a finding; what our data sets take is none."""

import cv2
import numpy as np
import pytest
from check_data_files import (
    CLASSES,
    STUFF,
    THINGS,
    drop,
    each_item,
    edit,
    file,
    first,
    instances,
    make,
    messages,
    metainfo,
    options,
    reverse,
)

from knet_plugin.datasets.check import check_config


def model(**changes):
    return lambda root, cfg: cfg.model.panoptic_head.update(changes)


def evaluator(**changes):
    return lambda root, cfg: cfg.val_evaluator.update(changes)


def text(content):
    return lambda root, cfg: (root / 'train.json').write_text(content)


def remove(*names):
    return lambda root, cfg: [(root / name).unlink() for name in names]


def drop_isthing(data):
    for category in data['categories']:
        category.pop('isthing')


def other_names(data):
    for annotation in data['annotations']:
        annotation['file_name'] = f'sub/seg_{annotation["file_name"]}'


def crowd(data):
    data['annotations'] = [dict(data['annotations'][0], id=i + 1) for i in range(200)]


def empty_image(root, cfg):
    cfg.train_dataloader.dataset.filter_cfg = dict(filter_empty_gt=True)
    edit(root, lambda data: data.update(annotations=[]), 'train')


INSTANCE_ERRORS = {
    'metainfo forgotten': (options(metainfo=None), ['80 classes of CocoDataset', 'cat, dog', 'num_things_classes=2']),
    'metainfo misspelt': (options(metainfo=dict(CLASSES=THINGS)), ['80 classes of CocoDataset', 'cat, dog']),
    'class misspelt': (metainfo(classes=('cat', 'dogs')), ["'dogs'", "did you mean 'dog'"]),
    'other case': (metainfo(classes=('Cat', 'Dog')), ['Cat, Dog', 'cat, dog']),
    'a text': (metainfo(classes='cat'), ["'cat'", 'list of names']),
    'one class for two': (metainfo(classes=('cat', )), ['num_things_classes=2', '1 names']),
    'categories in another order': (file(reverse), ["label 0 is 'cat'", "'dog'"]),
    'more classes in the model': (model(num_things_classes=80), ['num_things_classes=80', 'cat, dog']),
    'stuff in the model': (model(num_stuff_classes=2), ['num_stuff_classes=2']),
    'category twice': (file(lambda data: data['categories'].insert(0, dict(id=0, name='cat'))),
                       ['1 categories', 'knet_plugin.InstanceDataset']),
    'no such file': (options(ann_file='trian.json'), ['trian.json', 'does not exist']),
    'no such folder': (options(ann_file='annotation/train.json'), ['annotation/train.json']),
    'no such data': (options(data_root='/none/data'), ['/none/data']),
    'half a file': (text('{"images": ['), ['train.json', 'JSON']),
    'no categories': (text('{"images": [], "annotations": []}'), ['"categories"']),
    'images missing': (remove('images/1.jpg', 'images/2.jpg'), ['2 of 3 images are missing', '1.jpg', 'images/']),
    'wrong prefix': (options(data_prefix=dict(img='imgs/')), ['3 of 3 images', 'imgs/']),
    'no height': (first('images', height=None), ['"height"']),
    'another size': (first('images', width=77), ['1 images', '77']),
    'no area': (first('annotations', area=None), ['"area"']),
    'empty segmentation': (first('annotations', segmentation=[]), ['1 objects', 'empty']),
    'rle of another size': (first('annotations', segmentation=dict(size=[3, 3], counts=[9])), ['1 objects', 'size']),
    'nothing left': (empty_image, ['no image is left']),
    'unknown class': (options(type='CocoDataSet'), ["'CocoDataSet'"]),
    'misspelt option': (options(ann_files='train.json'), ['ann_files']),
    'no iscrowd': (first('annotations', 'val', iscrowd=None), ['"iscrowd"', 'InstanceMetric', 'val.json']),
    'no file of the metric': (evaluator(ann_file='none.json'), ['none.json']),
}
PANOPTIC_ERRORS = {
    'stuff first': (metainfo(classes=STUFF + THINGS), ["'sky'", 'thing_classes first', 'metainfo.classes']),
    'too many things': (metainfo(thing_classes=CLASSES), ['thing_classes', '4 names']),
    'no isthing': (file(drop_isthing), ['4 categories', '"isthing"', 'cat']),
    'another isthing': (first('categories', isthing=0), ["'cat' has isthing=0"]),
    'other png names': (file(other_names), ['3 images', 'knet_plugin.PanopticDataset']),
    'no iscrowd in val': (file(drop('iscrowd'), 'val'), ['12 objects', '"iscrowd"', 'PanopticMetric']),
    'unknown category': (file(lambda data: data['annotations'][1]['segments_info'][0].update(category_id=77)),
                         ['1 objects', 'category_id']),
    'an instance file': (file(lambda data: data.update(annotations=instances()['annotations'])),
                         ['panoptic annotations', 'knet_plugin.InstanceDataset']),
    'no prefix': (options(data_prefix=dict(img='images/')), ['data_prefix.seg']),
    'missing pngs': (remove('panoptic/0.png', 'panoptic/2.png'), ['2 of 3 panoptic PNGs', '0.png', '2.png']),
    'another size': (lambda root, cfg: cv2.imwrite(str(root / 'panoptic/0.png'), np.zeros((9, 9, 3), np.uint8)),
                     ['1 panoptic PNGs', '0.png', '(9, 9)']),
    'other segment ids': (file(each_item(lambda item: item.update(id=item['id'] + 100)), 'train'),
                          ['train.json: 12 segments', '101 of', '0.png']),
    'no seg_prefix': (evaluator(seg_prefix=None), ['val_evaluator', 'seg_prefix']),
    'wrong seg_prefix': (evaluator(seg_prefix='/none/png'), ['val_evaluator', '/none/png']),
    'objects are pasted, but not into the semantic map': (options(pipeline=[dict(type='CopyPaste')]),
                                                          ['knet_plugin.CopyPaste', 'train.json']),
}
WARNINGS = {
    'more objects than kernels': (file(crowd, 'train'), ['1 images', '200 objects', '3 kernels']),
    'class never occurs': (file(lambda data: data.update(annotations=data['annotations'][::2]), 'train'), ['dog']),
    'orphans': (first('annotations', image_id=99), ['1 objects are skipped: an image_id of no image']),
    'category outside the classes': (file(lambda data: (
        data['categories'].append(dict(id=9, name='cow')), data['annotations'][0].update(category_id=9))),
        ['1 objects are ignored', 'cow']),
}


@pytest.mark.parametrize(('kind', 'name'), [*(('instances', name) for name in INSTANCE_ERRORS),
                                            *(('panoptic', name) for name in PANOPTIC_ERRORS)])
def test_errors(tmp_path, kind, name):
    cfg = make(tmp_path, kind)
    apply, words = (INSTANCE_ERRORS if kind == 'instances' else PANOPTIC_ERRORS)[name]
    apply(tmp_path, cfg)
    found = messages(check_config(cfg).errors)
    assert [word for word in words if word not in found] == []


@pytest.mark.parametrize('ours', [False, True])
@pytest.mark.parametrize('name', WARNINGS)
def test_warnings(tmp_path, name, ours):
    cfg = make(tmp_path, 'instances', ours)
    apply, words = WARNINGS[name]
    apply(tmp_path, cfg)
    report = check_config(cfg)
    assert report.errors == []
    assert [word for word in words if word not in messages(report.warnings)] == []


@pytest.mark.parametrize('kind', ['instances', 'panoptic'])
@pytest.mark.parametrize('ours', [False, True])
def test_good_data(tmp_path, kind, ours):
    cfg = make(tmp_path, kind, ours)
    report = check_config(cfg)
    assert (report.errors, report.warnings) == ([], [])
    train, _ = report.census
    assert (train.section, train.images, train.objects_per_image, report.kernels) == ('train', 3, (2, 2), 3)
    assert train.objects == dict.fromkeys(THINGS if kind == 'instances' else CLASSES, 3)
    assert 'cat' in report.text()
    if ours:
        options(metainfo=None)(tmp_path, cfg)
        assert check_config(cfg).text() == report.text()
    cfg.model.panoptic_head.num_things_classes = 80
    assert 'num_things_classes=80' in messages(check_config(cfg).errors)


def add_root(name):
    def apply(data):
        for category in data['categories']:
            category['supercategory'] = 'pets'
        data['categories'].insert(0, dict(id=0, name=name, supercategory='none'))
    return file(apply)


def other_ids(data):
    for category in data['categories']:
        category['id'] *= 7
    each_item(lambda item: item.update(category_id=7 * item['category_id']))(data)


def move_pngs(root, cfg):
    edit(root, other_names)
    (root / 'panoptic').rename(root / 'moved')
    (root / 'panoptic/sub').mkdir(parents=True)
    for path in (root / 'moved').iterdir():
        path.rename(root / f'panoptic/sub/seg_{path.name}')


@pytest.mark.parametrize(('kind', 'apply', 'warning'), [
    *((kind, file(change), None) for kind in ('instances', 'panoptic')
      for change in (reverse, other_ids, drop('iscrowd'), drop('area', 'bbox'))),
    ('instances', add_root('pets'), "'pets'"), ('instances', add_root('cat'), "'cat'"),
    *(('instances', first('annotations', segmentation=segmentation), '1 objects')
      for segmentation in ([], [[]], None, [[1, 1, 5, 5]], dict(size=[1, 1], counts=[1]))),
    ('panoptic', file(drop_isthing), None), ('panoptic', metainfo(classes=STUFF + THINGS), None),
    ('panoptic', move_pngs, None)])
def test_what_our_data_sets_take(tmp_path, kind, apply, warning):
    cfg = make(tmp_path, kind, ours=True)
    apply(tmp_path, cfg)
    report = check_config(cfg)
    assert report.errors == []
    found = {(finding.file, warning in finding.message) for finding in report.warnings}
    assert found == ({(f'{tmp_path}/{name}.json', True) for name in ('train', 'val')} if warning else set())


@pytest.mark.parametrize(('kind', 'apply', 'words', 'stops'), [
    ('instances', metainfo(classes=('cats', 'dogs')), ['cats, dogs', 'cat, dog'], True),
    ('instances', metainfo(classes=('cat', 'dogs')), ["'dogs'", "did you mean 'dog'"], True),
    ('instances', metainfo(classes=('cat', 'hen')), ["'hen'"], False),
    ('panoptic', lambda root, cfg: (options(metainfo=None)(root, cfg), edit(root, drop_isthing)),
     ["'cat'", 'train.json'], True),
    ('panoptic', remove('panoptic/1.png'), ['1 of 3 panoptic PNGs'], True)])
def test_what_our_data_sets_do_not_take(tmp_path, kind, apply, words, stops):
    cfg = make(tmp_path, kind, ours=True)
    apply(tmp_path, cfg)
    report = check_config(cfg)
    assert bool(report.errors) == stops
    assert all(word in messages(report.errors + report.warnings) for word in words)


@pytest.mark.parametrize('kind', ['instances', 'panoptic'])
def test_training_and_validation_differ(tmp_path, kind):
    cfg = make(tmp_path, kind, ours=True)
    names = cfg.val_dataloader.dataset.metainfo.classes
    cfg.val_dataloader.dataset.metainfo.classes = (*reversed(THINGS), *names[2:])
    error, = check_config(cfg).errors
    assert all(word in error.message for word in ('label 0', "'dog' in the val data", "'cat' in the train data"))
    cfg.val_dataloader.dataset.metainfo.classes = names

    def without_cat(data):
        data['annotations'] = [each for each in data['annotations'] if each.get('category_id') != 1]
        for each in data['annotations']:
            each.update({key: value[1:] for key, value in each.items() if key == 'segments_info'})

    edit(tmp_path, without_cat, 'val')
    report = check_config(cfg)
    warning, = report.warnings
    assert (report.errors, warning.file) == ([], f'{tmp_path}/val.json')
    assert '1 classes occur in the training data' in warning.message and ': cat' in warning.message
    edit(tmp_path, lambda data: data.update(annotations=[]), 'val')
    report = check_config(cfg)
    assert report.errors == []
    assert f'{tmp_path}/val.json: no object of any class in the validation data' in messages(report.warnings)


def test_all_faults_at_once(tmp_path):
    cfg = make(tmp_path, 'instances')
    for apply in (remove('images/1.jpg', 'images/2.jpg'), file(crowd, 'train'), model(num_things_classes=5)):
        apply(tmp_path, cfg)
    report = check_config(cfg)
    assert len(report.errors) == 3  # missing images, and the model against each of the two files
    assert '200 objects' in messages(report.warnings)
    assert '2 of 3 images are missing' in messages(report.errors)
