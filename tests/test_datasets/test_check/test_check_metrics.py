"""Metrics with files of their own, and panoptic PNGs."""

import shutil

import cv2
import numpy as np
import pytest
from check_data_files import SIDE, drop, edit, instances, label_map, make, reverse, write_json

from knet_plugin.datasets.check import check_config, png_rules


def rename(*names):
    return lambda data: [category.update(name=name)
                         for category, name in zip(data['categories'], names, strict=False)]


@pytest.mark.parametrize(('kind', 'ours', 'function', 'words', 'stops'), [
    ('instances', False, lambda data: data.update(images=data['images'][:2], annotations=data['annotations'][:4]),
     ['1 ids only'], True),
    ('instances', False, reverse, ["label 0 is 'cat'"], True),
    ('instances', False, drop('iscrowd'), ['6 objects', '"iscrowd"'], True),
    ('instances', True, rename('CAT', 'DOG'), ['none of the classes', 'cat, dog', 'CAT, DOG'], True),
    ('instances', True, rename('cat', 'dogs'), ["'dog'", "did you mean 'dogs'"], False),
    ('panoptic', True, rename('CAT', 'DOG', 'SKY', 'SEA'), ['none of the classes', 'CAT, DOG'], True),
    ('panoptic', True, rename('cat', 'dog', 'hill'), ["'sky'"], False),
    ('panoptic', True, lambda data: data['categories'][0].update(isthing=0), ["'cat' has isthing=0"], True)])
def test_a_metric_with_its_own_file(tmp_path, kind, ours, function, words, stops):
    cfg = make(tmp_path, kind, ours)
    shutil.copy(tmp_path / 'val.json', tmp_path / 'metric.json')
    cfg.val_evaluator.ann_file = f'{tmp_path}/metric.json'
    assert check_config(cfg).text() == check_config(make(tmp_path, kind, ours)).text()
    edit(tmp_path, function, 'metric')
    report = check_config(cfg)
    finding, = report.errors if stops else report.warnings
    assert len(report.errors + report.warnings) == 1
    assert finding.file == f'{tmp_path}/metric.json'
    assert all(word in finding.message for word in words)


def test_an_instance_metric_needs_no_stuff(tmp_path):
    cfg = make(tmp_path, 'panoptic', ours=True)
    write_json(tmp_path / 'metric.json', instances())
    cfg.val_evaluator = dict(type='knet_plugin.InstanceMetric', ann_file=f'{tmp_path}/metric.json')
    assert check_config(cfg).warnings == []
    edit(tmp_path, rename('cat', 'cow'), 'metric')
    warning, = check_config(cfg).warnings
    assert "'dog'" in warning.message


@pytest.mark.parametrize('scope', ['', 'knet_plugin.'])
def test_a_segment_without_a_pixel(tmp_path, scope):
    cfg = make(tmp_path, 'panoptic')
    cfg.train_dataloader.dataset.pipeline[1].type = f'{scope}LoadPanopticAnnotations'
    edit(tmp_path, lambda data: data['annotations'][1]['segments_info'][0].update(id=77), 'train')
    report = check_config(cfg, ('train', ))
    finding, = report.warnings if scope else report.errors
    assert len(report.warnings + report.errors) == 1
    assert finding.file == f'{tmp_path}/train.json'
    assert all(word in finding.message for word in ('1 segments', '77 of', '1.png', 'LoadPanopticAnnotations'))
    edit(tmp_path, lambda data: data['annotations'][1].update(
        segments_info=data['annotations'][1]['segments_info'][:1]), 'train')
    error, = check_config(cfg, ('train', )).errors
    assert '1 segments' in error.message and '1.png' in error.message


@pytest.mark.parametrize('ours', [False, True])
@pytest.mark.parametrize(('values', 'words', 'stops'), [
    (None, ['1 of 3 panoptic PNGs', '1.png'], True), ([[1, 2, 3]], ['1 panoptic PNGs', '1.png', '(1, 3)'], True),
    (np.full((SIDE, SIDE), 9), ['4 segments', '1 of', '1.png'], True),
    (np.full((SIDE, SIDE), 2), ['3 segments', '1 of', '1.png', 'knet_plugin.PanopticMetric'], False)])
def test_pngs_of_the_metric_in_another_folder(tmp_path, ours, values, words, stops):
    cfg = make(tmp_path, 'panoptic', ours)
    shutil.copytree(tmp_path / 'panoptic', tmp_path / 'other')
    path = tmp_path / 'other/1.png'
    path.unlink()
    if values is not None:
        zeros = np.zeros_like(values)
        cv2.imwrite(str(path), np.dstack([zeros, zeros, values]).astype(np.uint8))
    cfg.val_evaluator.seg_prefix = f'{tmp_path}/other'
    report = check_config(cfg)
    finding, = report.warnings if ours and not stops else report.errors
    assert len(report.errors + report.warnings) == 1
    assert all(word in finding.message for word in ('val_evaluator', *words))


def test_the_pngs_of_data_and_metric_are_read_once(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(png_rules, 'read_segment_ids', lambda *args: read.append(args) or label_map(1, 2, 3, 4))
    cfg = make(tmp_path, 'panoptic')
    cfg.val_evaluator.seg_prefix = str(tmp_path / 'panoptic')  # the data set has a slash at the end
    check_config(cfg, ('val', ))
    assert len(read) == 3
    cfg.val_dataloader.dataset.pipeline.pop()
    check_config(cfg, ('val', ))
    assert len(read) == 6  # by the metric alone
