"""Faults of COCO instances: each change of good data gives a finding."""

import json

import pytest
from check_data_files import THINGS, instance_config, instances, write_images, write_instances, write_json
from mmengine.config import Config
from torch.utils.data import TensorDataset

from knet_plugin.datasets.check import check_config

ROOT = dict(id=0, name='pets', supercategory='none')


@pytest.fixture
def root(tmp_path):
    write_instances(tmp_path)
    return tmp_path


def change(root, function, *sections):
    for section in sections or ('train', 'val'):
        data = json.loads((root / f'{section}.json').read_text())
        write_json(root / f'{section}.json', function(data) or data)


def messages(findings):
    return '\n'.join(map(str, findings))


def test_good_data(root):
    report = check_config(instance_config(root))
    assert (report.errors, report.warnings) == ([], [])
    train, val = report.census
    assert (train.section, train.images, train.objects) == ('train', 3, dict(cat=3, dog=3))
    assert train.objects_per_image == (2, 2)
    assert report.kernels == 3
    assert 'cat' in report.text()


def options(**changes):
    """A change of the config's training and validation data."""
    def apply(root, cfg):
        for name in ('train_dataloader', 'val_dataloader'):
            for key, value in changes.items():
                cfg[name].dataset.pop(key, None)  # ConfigDict would merge dicts
                if value is not None:
                    cfg[name].dataset[key] = value
    return apply


def entries(key, sections=('train', 'val'), **changes):
    """A change of the first entry of a list in the files; None removes a field."""
    def apply(root, cfg):
        def edit(data):
            data[key][0].update(changes)
            for name in [name for name, value in changes.items() if value is None]:
                data[key][0].pop(name)
        change(root, edit, *sections)
    return apply


def model(**changes):
    def apply(root, cfg):
        cfg.model.panoptic_head.update(changes)
    return apply


def text(content):
    def apply(root, cfg):
        (root / 'train.json').write_text(content)
    return apply


def crowded(root, cfg):
    change(root, lambda data: data.update(annotations=[
        dict(data['annotations'][0], id=i + 1) for i in range(200)]), 'train')


def without_images(root, cfg):
    (root / 'images/1.jpg').unlink()
    (root / 'images/2.jpg').unlink()


def reverse_categories(root, cfg):
    change(root, lambda data: data['categories'].reverse())


def two_roots(root, cfg):
    change(root, lambda data: data['categories'].insert(0, dict(id=0, name='cat', supercategory='none')))


def empty_image(root, cfg):
    cfg.train_dataloader.dataset.filter_cfg = dict(filter_empty_gt=True)
    change(root, lambda data: data.update(annotations=[]), 'train')


ERRORS = {
    'metainfo forgotten': (options(metainfo=None), ['80 classes of CocoDataset', 'cat, dog', 'num_things_classes=2']),
    'metainfo misspelt': (options(metainfo=dict(CLASSES=THINGS)), ['80 classes of CocoDataset', 'cat, dog']),
    'class misspelt': (options(metainfo=dict(classes=('cat', 'dogs'))), ["'dogs'", "did you mean 'dog'"]),
    'other case': (options(metainfo=dict(classes=('Cat', 'Dog'))), ['Cat, Dog', 'cat, dog']),
    'a text': (options(metainfo=dict(classes='cat')), ["'cat'", 'list of names']),
    'one class for two': (options(metainfo=dict(classes=('cat', ))), ['num_things_classes=2', '1 names']),
    'classes in another order': (options(metainfo=dict(classes=THINGS[::-1])), ["'dog'", "'cat'"]),
    'categories in another order': (reverse_categories, ["label 0 is 'cat'", "'dog'"]),
    'more classes in the model': (model(num_things_classes=80), ['num_things_classes=80', 'cat, dog']),
    'stuff in the model': (model(num_stuff_classes=2), ['num_stuff_classes=2']),
    'category twice': (two_roots, ['1 categories', 'knet_plugin.InstanceDataset']),
    'no such file': (options(ann_file='trian.json'), ['trian.json', 'does not exist']),
    'no such folder': (options(ann_file='annotation/train.json'), ['annotation/train.json']),
    'no such data': (options(data_root='/none/data'), ['/none/data']),
    'empty file': (text(''), ['train.json', 'JSON']),
    'half a file': (text('{"images": ['), ['train.json', 'JSON']),
    'no categories': (text('{"images": [], "annotations": []}'), ['"categories"']),
    'images missing': (without_images, ['2 of 3 images are missing', '1.jpg', 'images/']),
    'wrong prefix': (options(data_prefix=dict(img='imgs/')), ['3 of 3 images', 'imgs/']),
    'no height': (entries('images', height=None), ['"height"']),
    'another size': (entries('images', width=77), ['1 images', '77']),
    'no area': (entries('annotations', area=None), ['"area"']),
    'empty segmentation': (entries('annotations', segmentation=[]), ['1 objects', 'empty']),
    'no segmentation': (entries('annotations', segmentation=None), ['1 objects', 'missing']),
    'empty polygon': (entries('annotations', segmentation=[[]]), ['1 objects', 'empty']),
    'two points': (entries('annotations', segmentation=[[1, 1, 5, 5]]), ['1 objects', '3 points']),
    'rle of another size': (entries('annotations', segmentation=dict(size=[3, 3], counts=[9])), ['1 objects', 'size']),
    'nothing left': (empty_image, ['no image is left']),
    'unknown class': (options(type='CocoDataSet'), ["'CocoDataSet'"]),
    'misspelt option': (options(ann_files='train.json'), ['ann_files']),
    'no iscrowd': (entries('annotations', ('val', ), iscrowd=None), ['"iscrowd"', 'InstanceMetric', 'val.json']),
}
WARNINGS = {
    'more objects than kernels': (crowded, ['1 images', '200 objects', '3 kernels']),
    'class never occurs': (lambda root, cfg: change(root, lambda data: data.update(
        annotations=data['annotations'][::2]), 'train'), ['dog']),
    'orphans': (entries('annotations', image_id=99), ['1 objects are skipped: an image_id of no image']),
    'category outside the classes': (lambda root, cfg: (
        change(root, lambda data: data['categories'].append(dict(id=9, name='cow'))),
        entries('annotations', category_id=9)(root, cfg)), ['1 objects are ignored', 'cow']),
}


@pytest.mark.parametrize('name', ERRORS)
def test_errors(root, name):
    cfg = instance_config(root)
    apply, words = ERRORS[name]
    apply(root, cfg)
    found = messages(check_config(cfg).errors)
    for word in words:
        assert word in found


@pytest.mark.parametrize('name', WARNINGS)
def test_warnings(root, name):
    cfg = instance_config(root)
    apply, words = WARNINGS[name]
    apply(root, cfg)
    report = check_config(cfg)
    assert report.errors == []
    for word in words:
        assert word in messages(report.warnings)


def test_all_faults_at_once(root):
    cfg = instance_config(root)
    for apply in (without_images, crowded, model(num_things_classes=5)):
        apply(root, cfg)
    report = check_config(cfg)
    assert len(report.errors) == 3  # missing images, and the model against each of the two files
    assert '200 objects' in messages(report.warnings)
    assert [error.count for error in report.errors if 'missing' in error.message] == [2]


def test_missing_data_is_one_line(root):
    cfg = instance_config(root / 'nothing')
    cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
    report = check_config(cfg)
    assert [error.file for error in report.errors] == [f'{root}/nothing/']
    cfg.train_dataloader.dataset.update(ann_file=f'{root}/train.json', data_prefix=dict(img=f'{root}/images'))
    assert not check_config(cfg, ('train', )).errors  # data_root is not used


@pytest.mark.parametrize('wrap', [
    lambda data: dict(type='RepeatDataset', times=3, dataset=data),
    lambda data: dict(type='ConcatDataset', datasets=[data, data]),
    lambda data: dict(type='ClassBalancedDataset', oversample_thr=1e-3, dataset=data),
    lambda data: dict(type='MultiImageMixDataset', pipeline=[], dataset=dict(type='RepeatDataset', times=2,
                                                                             dataset=data)),
])
def test_wrapped_data_sets(root, wrap):
    cfg = instance_config(root)
    cfg.train_dataloader.dataset = Config(wrap(cfg.train_dataloader.dataset.to_dict()))._cfg_dict
    without_images(root, cfg)
    assert not check_config(instance_config(root), ()).errors
    assert '2 of 3 images' in messages(check_config(cfg, ('train', )).errors)


def test_test_time_augmentation(root):
    cfg = instance_config(root)
    cfg.model = dict(type='DetTTAModel', module=dict(cfg.model, panoptic_head=dict(
        num_things_classes=7, num_stuff_classes=0)))
    assert 'num_things_classes=7' in messages(check_config(cfg).errors)


def test_what_is_no_coco_data_is_not_checked(root):
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type=TensorDataset)), val_dataloader=None))
    assert check_config(cfg).errors == []
    assert check_config(Config(dict())).text() == 'no errors, no warnings'


@pytest.mark.parametrize(('function', 'words'), [
    (lambda data: data.update(images=data['images'][:2], annotations=data['annotations'][:4]), ['1 ids only']),
    (lambda data: data.update(categories=data['categories'][::-1]), ["label 0 is 'cat'"]),
    (lambda data: data.update(categories=[dict(id=1, name='cow'), dict(id=2, name='hen')]), ['none of the classes']),
    (lambda data: [each.pop('iscrowd') for each in data['annotations']][:0], ['6 objects', '"iscrowd"']),
])
def test_metrics(root, function, words):
    cfg = instance_config(root)
    data = instances()
    function(data)
    write_json(root / 'metric.json', data)
    cfg.val_evaluator = [dict(type='CocoMetric', metric='segm', ann_file=f'{root}/metric.json')]
    found = messages(check_config(cfg).errors)
    assert all(word in found and 'metric.json' in found for word in words)


def test_missing_file_of_a_metric(root):
    cfg = instance_config(root)
    cfg.val_evaluator.ann_file = f'{root}/none.json'
    assert 'none.json' in messages(check_config(cfg).errors)
    assert not check_config(cfg, ('train', )).errors


def test_dropped_images(root):
    write_images(root / 'images', 4)
    data = instances(4)
    data['annotations'] = data['annotations'][:6]
    write_json(root / 'train.json', data)
    cfg = instance_config(root)
    cfg.train_dataloader.dataset.filter_cfg = dict(filter_empty_gt=True, min_size=32)
    assert check_config(cfg, ('train', )).census[0].dropped == {'no object': 1}
    cfg.train_dataloader.dataset.filter_cfg.min_size = 64
    assert check_config(cfg, ('train', )).census[0].dropped == {'no object': 1, 'smaller than 64 pixels': 3}
