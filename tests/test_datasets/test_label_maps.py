from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS, DefaultScope
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from knet_plugin.datasets.label_maps import LoadLabels


def load(path: Path, transform: Any, reduce: bool = False, label_map: dict | None = None) -> np.ndarray:
    results = dict(seg_map_path=str(path), reduce_zero_label=reduce, label_map=label_map, seg_fields=[])
    results = transform(results)
    assert results['seg_fields'] == ['gt_seg_map']
    return results['gt_seg_map']


def write(path: Path, labels: Any, dtype: type = np.uint16) -> Path:
    assert cv2.imwrite(str(path), np.array(labels, dtype))
    return path


@pytest.mark.parametrize('label_map', [None, {0: 1, 1: 0, 5: 255}])
@pytest.mark.parametrize('reduce', [True, False])
def test_same_as_mmseg_for_8_bits(tmp_path, reduce, label_map):
    path = write(tmp_path / 'a.png', np.arange(256).reshape(8, 32), np.uint8)
    ours, stock = (load(path, kind(), reduce, label_map) for kind in (LoadLabels, LoadAnnotations))
    assert ours.dtype == stock.dtype and np.array_equal(ours, stock)


@pytest.mark.parametrize('backend', ['pillow', 'cv2'])
def test_values_of_16_bits(tmp_path, backend):
    path = write(tmp_path / 'a.png', [[0, 255, 256], [300, 1000, 65535]])
    labels = load(path, LoadLabels(ignore_index=65535, imdecode_backend=backend))
    assert labels.tolist() == [[0, 255, 256], [300, 1000, 65535]] and labels.dtype == np.uint16
    assert load(path, LoadLabels(ignore_index=65535), reduce=True).tolist() == [[65535, 254, 255], [299, 999, 65535]]


def test_16_bits_with_few_classes(tmp_path):
    path = write(tmp_path / 'a.png', [[0, 1, 254, 255, 65535]])
    labels = load(path, LoadLabels())
    assert labels.tolist() == [[0, 1, 254, 255, 255]] and labels.dtype == np.uint8


@pytest.mark.parametrize(('reduce', 'label'), [(False, 256), (False, 300), (True, 257)])
def test_label_above_the_ignored(tmp_path, reduce, label):
    path = write(tmp_path / 'a.png', [[0, label, 65535]])
    with pytest.raises(ValueError, match=rf'a\.png: label {label - reduce} .*ignore_index=255'):
        load(path, LoadLabels(), reduce)


def test_label_map(tmp_path):
    path = write(tmp_path / 'a.png', [[0, 300, 65535]])
    assert load(path, LoadLabels(ignore_index=65535), label_map={300: 0, 0: 300}).tolist() == [[300, 0, 65535]]


def test_palette(tmp_path):
    image = Image.fromarray(np.array([[0, 3]], np.uint8), mode='P')
    image.putpalette([9, 9, 9] * 256)
    image.save(tmp_path / 'a.png')
    assert load(tmp_path / 'a.png', LoadLabels()).tolist() == [[0, 3]]


@pytest.mark.parametrize('shape', [(1, 1), (1, 5), (5, 1)])
def test_one_row_or_column(tmp_path, shape):
    """mmseg squeezes it."""
    assert load(write(tmp_path / 'a.png', np.ones(shape)), LoadLabels()).shape == shape


@pytest.mark.parametrize('content', [b'', b'text'])
def test_file_that_cannot_be_decoded(tmp_path, content):
    (tmp_path / 'a.png').write_bytes(content)
    with pytest.raises(ValueError, match=r'seg_map_path .*a\.png'):
        load(tmp_path / 'a.png', LoadLabels())


def test_colours(tmp_path):
    path = write(tmp_path / 'a.png', np.zeros((4, 5, 3)), np.uint8)
    with pytest.raises(ValueError, match=r'a\.png: .*\(4, 5, 3\)'):
        load(path, LoadLabels())


def test_other_reduce_zero_label_than_the_data_set(tmp_path):
    with pytest.raises(ValueError, match='reduce_zero_label is True .*False'):
        load(write(tmp_path / 'a.png', [[0]]), LoadLabels(reduce_zero_label=True))


def test_no_annotations_when_testing():
    assert LoadLabels()(dict(img=1)) == dict(img=1)


def test_pipeline_of_mmseg(tmp_path):
    """Classes above 255 arrive in the model's targets."""
    (tmp_path / 'images').mkdir()
    (tmp_path / 'labels').mkdir()
    write(tmp_path / 'images/a.jpg', np.zeros((8, 6, 3)), np.uint8)
    write(tmp_path / 'labels/a.png', np.repeat([[0, 299, 65535]], 2, axis=1).repeat(8, axis=0))
    pipeline = [dict(type='LoadImageFromFile'), dict(type='knet_plugin.LoadLabels', ignore_index=65535),
                dict(type='Resize', scale=(12, 16)), dict(type='RandomFlip', prob=1.), dict(type='PackSegInputs')]
    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = DATASETS.build(dict(
            type='BaseSegDataset', data_root=str(tmp_path), pipeline=pipeline,
            data_prefix=dict(img_path='images', seg_map_path='labels'),
            metainfo=dict(classes=[f'class {i}' for i in range(300)])))
        labels = dataset[0]['data_samples'].gt_sem_seg.data
    assert labels.shape == (1, 16, 12) and labels[0, 0].tolist() == 4 * [65535] + 4 * [299] + 4 * [0]
