"""Sections, wrappers and images that are dropped."""

import pytest
from check_data_files import (
    SIDE,
    edit,
    instance_config,
    instances,
    make,
    messages,
    write_images,
    write_instances,
    write_json,
)
from mmengine.config import Config
from torch.utils.data import TensorDataset

from knet_plugin.datasets.check import check_config


def test_missing_data_is_one_line(tmp_path):
    cfg = instance_config(tmp_path / 'nothing')
    write_instances(tmp_path)
    cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
    report = check_config(cfg)
    assert [error.file for error in report.errors] == [f'{tmp_path}/nothing/']
    cfg.train_dataloader.dataset.update(ann_file=f'{tmp_path}/train.json', data_prefix=dict(img=f'{tmp_path}/images'))
    assert not check_config(cfg, ('train', )).errors  # data_root is not used


@pytest.mark.parametrize('wrap', [
    lambda data: dict(type='RepeatDataset', times=3, dataset=data),
    lambda data: dict(type='ConcatDataset', datasets=[data, data]),
    lambda data: dict(type='MultiImageMixDataset', pipeline=[], dataset=dict(type='RepeatDataset', times=2,
                                                                             dataset=data)),
])
def test_wrapped_data_sets(tmp_path, wrap):
    cfg = make(tmp_path, 'instances')
    cfg.train_dataloader.dataset = Config(wrap(cfg.train_dataloader.dataset.to_dict()))._cfg_dict
    for name in ('1.jpg', '2.jpg'):
        (tmp_path / 'images' / name).unlink()
    assert '2 of 3 images' in messages(check_config(cfg, ('train', )).errors)


def test_test_time_augmentation(tmp_path):
    cfg = make(tmp_path, 'instances')
    cfg.model = dict(type='DetTTAModel', module=dict(cfg.model, panoptic_head=dict(
        num_things_classes=7, num_stuff_classes=0)))
    assert 'num_things_classes=7' in messages(check_config(cfg).errors)


def test_what_is_no_coco_data_is_not_checked():
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type=TensorDataset)), val_dataloader=None))
    assert check_config(cfg).errors == []
    assert check_config(Config(dict())).text() == 'no errors, no warnings'


def test_dropped_images(tmp_path):
    cfg = make(tmp_path, 'instances')
    write_images(tmp_path / 'images', 4)
    data = instances(4)
    data['annotations'] = data['annotations'][:6]
    write_json(tmp_path / 'train.json', data)
    cfg.train_dataloader.dataset.filter_cfg = dict(filter_empty_gt=True, min_size=SIDE + 1)
    assert check_config(cfg, ('train', )).census[0].dropped == {'no object': 1, f'smaller than {SIDE + 1} pixels': 3}


@pytest.mark.parametrize('ours', [False, True])
def test_stuff_only_images(tmp_path, ours):
    cfg = make(tmp_path, 'panoptic', ours)
    edit(tmp_path, lambda data: [each.update(segments_info=each['segments_info'][2:])
                                 for each in data['annotations'][:2]])
    assert check_config(cfg).warnings == []  # kept without a filter
    cfg.train_dataloader.dataset.filter_cfg = dict(filter_empty_gt=True)
    report = check_config(cfg)
    assert ('2 of 3 images have only stuff' in messages(report.warnings)) == (not ours)
    assert report.census[0].dropped == ({} if ours else {'stuff only': 2})
