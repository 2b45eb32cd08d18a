from pathlib import Path

import pytest

from knet_plugin.datasets.config_parts import BEST_METRICS, crop_side, data_config, plain_datasets
from knet_plugin.datasets.description import DataDescription

TASKS = ('panoptic', 'instance', 'semantic')


@pytest.fixture
def description(tmp_path):
    (tmp_path / 'images/train').mkdir(parents=True)
    (tmp_path / 'images/train/a.jpg').touch()
    (tmp_path / 'images/train/b.png').touch()
    return DataDescription(tmp_path, 'panoptic', ('cat', 'dog'), ('sky',))


def files(dataset: dict) -> list[str]:
    parts = dataset.get('datasets', [dataset])
    return [value for part in parts for value in (part.get('ann_file'), *part['data_prefix'].values()) if value]


@pytest.mark.parametrize('task', TASKS)
def test_loaders_and_evaluators_of_each_task(task, description):
    parts = data_config(description, task, short_side=100, batch_size=3, num_workers=0)
    assert list(parts) == ['train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator', 'test_evaluator']
    assert parts['train_dataloader']['batch_size'] == 3 and not parts['train_dataloader']['persistent_workers']
    assert all('train' in file for file in files(parts['train_dataloader']['dataset']))
    assert all('val' in file for file in files(parts['val_dataloader']['dataset']))
    assert parts['val_dataloader'] == parts['test_dataloader'] and task in BEST_METRICS


@pytest.mark.parametrize(('task', 'classes'), [('panoptic', 3), ('instance', 2)])
def test_classes_and_absolute_files(task, classes, description):
    parts = data_config(description, task)
    dataset = parts['train_dataloader']['dataset']
    assert len(dataset['metainfo']['classes']) == classes
    assert Path(dataset['data_root']) == description.root
    assert all(Path(metric['ann_file']).is_absolute() for metric in parts['val_evaluator'])


def test_training_crops_and_evaluation_does_not(description):
    parts = data_config(description, 'panoptic', short_side=100)
    train, val = (parts[name]['dataset']['pipeline'] for name in ('train_dataloader', 'val_dataloader'))
    crop, = (step for step in train if step['type'] == 'RandomCrop')
    assert crop['crop_size'] == (128, 128) == (crop_side(100),) * 2
    assert {step['type'] for step in val}.isdisjoint({'RandomCrop', 'RandomFlip', 'RandomResize'})


def test_mmseg_gets_a_data_set_for_each_ending(description):
    dataset = data_config(description, 'semantic')['train_dataloader']['dataset']
    assert [part['img_suffix'] for part in dataset['datasets']] == ['.jpg', '.png']
    (description.root / 'images/train/b.png').unlink()
    assert data_config(description, 'semantic')['train_dataloader']['dataset']['img_suffix'] == '.jpg'


@pytest.mark.parametrize('task', TASKS)
def test_a_loader_of_the_user_reads_all_images_and_keeps_their_values(task, description):
    load = dict(type='LoadImageFromFile', color_type=3, to_float32=True)
    parts = data_config(description, task, load=load)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for dataset in plain_datasets(parts[name]['dataset']):
            assert dataset['pipeline'][0] == load
            assert 'PhotoMetricDistortion' not in [step['type'] for step in dataset['pipeline']]


def test_the_loaders_share_nothing(description):
    parts = data_config(description, 'panoptic')
    parts['val_dataloader']['dataset']['pipeline'].clear()
    assert parts['test_dataloader']['dataset']['pipeline']


def test_a_path_is_read(description):
    description.write()
    assert data_config(str(description.root), 'panoptic') == data_config(description, 'panoptic')


@pytest.mark.parametrize('task', ['panoptic', 'instance'])
def test_copy_paste_sees_images_of_one_size_and_the_colours_come_last(task, description):
    dataset = data_config(description, task, 100, copy_paste=True)['train_dataloader']['dataset']
    inner, outer = ([step['type'] for step in part['pipeline']] for part in (dataset['dataset'], dataset))
    assert inner[-1] == 'Pad' and dataset['dataset']['pipeline'][-1]['size'] == (128, 128)
    assert outer == ['knet_plugin.CopyPaste', 'FilterAnnotations', 'PhotoMetricDistortion', 'PackDetInputs']
    plain = data_config(description, task, 100)['train_dataloader']['dataset']
    assert [step['type'] for step in plain['pipeline']] == inner[:-1] + outer[2:]


@pytest.mark.parametrize('task', TASKS)
def test_scales_of_the_training_images(task, description):
    for dataset in plain_datasets(data_config(description, task, 100, scales=(0.1, 2))['train_dataloader']['dataset']):
        resize, = (step for step in dataset['pipeline'] if step['type'] == 'RandomResize')
        assert resize['ratio_range'] == (0.1, 2)


@pytest.mark.parametrize(('task', 'options', 'named'), [
    ('semantic', dict(scales=(0, 1)), 'scales'), ('semantic', dict(copy_paste=True), 'copy_paste=True'),
    ('instance', {}, 'instance.*semantic'), ('semantic', dict(short_side=0), 'short_side=0'),
    ('semantic', dict(batch_size=-1), 'batch_size=-1')])
def test_wrong_arguments(task, options, named, tmp_path):
    stuff_only = DataDescription(tmp_path, 'semantic', (), ('sky', 'sea'))
    with pytest.raises(ValueError, match=named):
        data_config(stuff_only, task, **options)
