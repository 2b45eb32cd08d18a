"""Faults of panoptic data."""

import json
import shutil

import cv2
import numpy as np
import pytest
from check_data_files import CLASSES, SQUARE, STUFF, THINGS, label_map, panoptic_config, write_json, write_maps, write_panoptic

from knet_plugin.datasets.check import check_config, png_rules


@pytest.fixture
def root(tmp_path):
    write_panoptic(tmp_path)
    return tmp_path


def messages(findings):
    return '\n'.join(map(str, findings))


def edit(root, function, sections=('train', 'val')):
    for section in sections:
        data = json.loads((root / f'{section}.json').read_text())
        function(data)
        write_json(root / f'{section}.json', data)


def metainfo(**changes):
    def apply(root, cfg):
        for name in ('train_dataloader', 'val_dataloader'):
            cfg[name].dataset.metainfo.update(changes)
    return apply


def file(function, *sections):
    return lambda root, cfg: edit(root, function, sections or ('train', 'val'))


def drop_isthing(data):
    for category in data['categories']:
        category.pop('isthing')


def change_isthing(data):
    data['categories'][0]['isthing'] = 0


def other_names(data):
    for annotation in data['annotations']:
        annotation['file_name'] = f'seg_{annotation["file_name"]}'


def subfolders(data):
    for annotation in data['annotations']:
        annotation['file_name'] = f'sub/{annotation["file_name"]}'


def jpeg(data):
    for image in data['images']:
        image['file_name'] = image['file_name'].replace('.jpg', '.jpeg')


def drop_iscrowd(data):
    for annotation in data['annotations']:
        for segment in annotation['segments_info']:
            segment.pop('iscrowd')


def other_segment_ids(data):
    for annotation in data['annotations']:
        for segment in annotation['segments_info']:
            segment['id'] += 100


def unknown_category(data):
    data['annotations'][1]['segments_info'][0]['category_id'] = 77


def instances_instead(data):
    data['annotations'] = [dict(id=1, image_id=0, category_id=1, bbox=[1, 1, 5, 5], area=25, segmentation=SQUARE)]


def without_prefix(root, cfg):
    cfg.train_dataloader.dataset.data_prefix = dict(img='images/')


def missing_pngs(root, cfg):
    (root / 'panoptic/0.png').unlink()
    (root / 'panoptic/2.png').unlink()


def seg_prefix(value):
    def apply(root, cfg):
        cfg.val_evaluator.seg_prefix = value
    return apply


def test_good_data(root):
    report = check_config(panoptic_config(root))
    assert (report.errors, report.warnings) == ([], [])
    assert report.census[0].objects == dict.fromkeys(CLASSES, 3)
    assert report.census[0].objects_per_image == (2, 2)  # things


ERRORS = {
    'stuff first': (metainfo(classes=STUFF + THINGS), ["'sky'", 'thing_classes first', 'metainfo.classes']),
    'too many things': (metainfo(thing_classes=CLASSES), ['thing_classes', '4 names']),
    'no isthing': (file(drop_isthing), ['4 categories', '"isthing"', 'cat']),
    'another isthing': (file(change_isthing), ["'cat' has isthing=0"]),
    'other png names': (file(other_names), ['3 images', 'knet_plugin.PanopticDataset']),
    'pngs in subfolders': (file(subfolders), ['3 images', 'knet_plugin.PanopticDataset']),
    'jpeg': (file(jpeg), ['3 of 3 images are missing', '0.jpeg']),
    'no iscrowd in val': (file(drop_iscrowd, 'val'), ['12 objects', '"iscrowd"', 'PanopticMetric']),
    'unknown category': (file(unknown_category), ['1 objects', 'category_id']),
    'an instance file': (file(instances_instead), ['panoptic annotations', 'knet_plugin.InstanceDataset']),
    'no seg prefix': (without_prefix, ['data_prefix.seg']),
    'missing pngs': (missing_pngs, ['2 of 3 panoptic PNGs', '0.png']),
    'other order': (file(lambda data: data['categories'].reverse()), ["'cat'", "'sea'", 'knet_plugin.PanopticDataset',
                                                                     'knet_plugin.PanopticMetric']),
    'broken png': (lambda root, cfg: (root / 'panoptic/1.png').write_bytes(b''), ['1 panoptic PNGs', '1.png']),
    'png of another size': (lambda root, cfg: write_maps(root / 'panoptic', np.zeros((9, 9, 3), np.uint8), 1),
                            ['1 panoptic PNGs', '0.png', '(9, 9)']),
    'other segment ids': (file(other_segment_ids, 'train'), ['train.json: 12 segments', '101 of', '0.png']),
    'no seg_prefix': (seg_prefix(None), ['val_evaluator', 'seg_prefix']),
    'wrong seg_prefix': (seg_prefix('/none/png'), ['val_evaluator', '/none/png']),
}


@pytest.mark.parametrize('name', ERRORS)
def test_errors(root, name):
    cfg = panoptic_config(root)
    apply, words = ERRORS[name]
    apply(root, cfg)
    found = messages(check_config(cfg).errors)
    for word in words:
        assert word in found


@pytest.mark.parametrize(('scope', 'dataset'), [
    ('', 'CocoPanopticDataset'), ('knet_plugin.', 'CocoPanopticDataset'),
    ('knet_plugin.', 'knet_plugin.PanopticDataset')])
def test_a_segment_without_a_pixel(root, scope, dataset):
    cfg = panoptic_config(root, dataset)
    cfg.train_dataloader.dataset.pipeline[1].type = f'{scope}LoadPanopticAnnotations'
    edit(root, lambda data: data['annotations'][1]['segments_info'][0].update(id=77), ['train'])
    report = check_config(cfg, ('train', ))
    finding, = report.warnings if scope else report.errors
    assert len(report.warnings + report.errors) == 1
    assert (finding.file, finding.count) == (f'{root}/train.json', 1)
    assert all(word in finding.message for word in ('77 of', '1.png', 'knet_plugin.LoadPanopticAnnotations'))
    edit(root, lambda data: data['annotations'][1].update(segments_info=data['annotations'][1]['segments_info'][:1]),
         ['train'])
    error, = check_config(cfg, ('train', )).errors
    assert error.count == 1 and '1.png' in error.message


def test_stuff_only_images(root):
    def stuff_only(data):
        for annotation in data['annotations'][:2]:
            annotation['segments_info'] = annotation['segments_info'][2:]

    edit(root, stuff_only)
    cfg = panoptic_config(root)
    assert check_config(cfg).warnings == []  # kept without a filter
    cfg.train_dataloader.dataset.filter_cfg = dict(filter_empty_gt=True)
    report = check_config(cfg)
    assert '2 of 3 images have only stuff' in messages(report.warnings)
    assert (report.census[0].images, report.census[0].dropped) == (1, {'stuff only': 2})


@pytest.mark.parametrize('metric', ['CocoPanopticMetric', 'knet_plugin.PanopticMetric'])
@pytest.mark.parametrize(('values', 'words', 'stops'), [
    (None, ['1 of 3 panoptic PNGs', '1.png'], True), ([[1, 2, 3]], ['1 panoptic PNGs', '1.png', '(1, 3)'], True),
    (np.full((40, 40), 9), ['4 segments', '1 of', '1.png'], True),
    (np.full((40, 40), 2), ['3 segments', '1 of', '1.png', 'knet_plugin.PanopticMetric'], False)])
def test_pngs_of_the_metric_in_another_folder(root, metric, values, words, stops):
    shutil.copytree(root / 'panoptic', root / 'other')
    path = root / 'other/1.png'
    path.unlink()
    if values is not None:
        zeros = np.zeros_like(values)
        cv2.imwrite(str(path), np.dstack([zeros, zeros, values]).astype(np.uint8))
    cfg = panoptic_config(root, metric=metric)
    cfg.val_evaluator.seg_prefix = f'{root}/other'
    report = check_config(cfg)
    finding, = report.errors if stops or metric.startswith('Coco') else report.warnings
    assert len(report.errors + report.warnings) == 1
    assert all(word in finding.message for word in ('val_evaluator', *words))


def test_the_pngs_of_data_and_metric_are_read_once(root, monkeypatch):
    read = []
    monkeypatch.setattr(png_rules, 'read_segment_ids', lambda *args: read.append(args) or label_map(1, 2, 3, 4))
    cfg = panoptic_config(root)
    cfg.val_evaluator.seg_prefix = str(root / 'panoptic')  # the data set has a slash at the end
    check_config(cfg, ('val', ))
    assert len(read) == 3
    cfg.val_dataloader.dataset.pipeline.pop()
    check_config(cfg, ('val', ))
    assert len(read) == 6  # by the metric alone
