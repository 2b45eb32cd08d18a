"""Folders that ``knet data prepare`` wrote."""

import json

import pytest
from check_data_files import STUFF, THINGS, instances, panoptic, write_images, write_json

from knet_plugin.datasets.check import check_data, files
from knet_plugin.datasets.coco_file import read_coco
from knet_plugin.datasets.description import DataDescription


@pytest.fixture
def root(tmp_path):
    for split in ('train', 'val'):
        write_images(tmp_path / 'images' / split)
        write_json(tmp_path / f'annotations/instances_{split}.json', instances())
    DataDescription(tmp_path, 'instance', THINGS, ()).write()
    return tmp_path


def test_good_data(root):
    report = check_data(root)
    assert (report.errors, report.warnings) == ([], [])
    assert [census.section for census in report.census] == ['train', 'val']
    assert report.kernels
    assert check_data(root / 'data.yml').text() == report.text()


def test_faults(root):
    path = root / 'annotations/instances_train.json'
    data = json.loads(path.read_text())
    data['annotations'] = [dict(data['annotations'][0], id=i + 1) for i in range(200)]
    write_json(path, data)
    (root / 'images/val/1.jpg').unlink()
    report = check_data(root)
    assert ['1 of 3 images' in str(error) for error in report.errors] == [True]
    assert any('200 objects' in str(warning) for warning in report.warnings)


def test_annotation_files_are_read_once(root, monkeypatch):
    DataDescription(root, 'panoptic', THINGS, STUFF).write()
    for split in ('train', 'val'):
        write_json(root / f'annotations/panoptic_{split}.json', panoptic())
    read = []
    monkeypatch.setattr(files, 'read_coco', lambda path, *args: read.append(path) or read_coco(path, *args))
    check_data(root)
    assert len(read) == len(set(read)) == 4


def test_no_data(tmp_path):
    with pytest.raises((OSError, ValueError), match='nothing'):
        check_data(tmp_path / 'nothing')
