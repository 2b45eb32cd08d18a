import json
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
from mmdet.datasets import CocoPanopticDataset
from mmengine.registry import DefaultScope

from knet_plugin.datasets.shapes import CLASSES, STUFF_CLASSES, THING_CLASSES

METAINFO = dict(classes=CLASSES, thing_classes=THING_CLASSES, stuff_classes=STUFF_CLASSES)
IMAGE, PNG, JSON = 'train/000000.jpg', 'annotations/panoptic_train/000000.png', 'annotations/panoptic_train.json'


def dataset(root: Path, scope: str = 'knet_plugin.', **prefix: str) -> CocoPanopticDataset:
    pipeline = [dict(type=f'{scope}LoadImageFromFile'), dict(type=f'{scope}LoadPanopticAnnotations'),
                dict(type='PackDetInputs')]
    prefix = prefix or dict(img='train/', seg='annotations/panoptic_train/')
    with DefaultScope.overwrite_default_scope('mmdet'):
        return CocoPanopticDataset(ann_file=JSON, data_root=f'{root}/', data_prefix=prefix, metainfo=METAINFO,
                                   pipeline=pipeline)


def edit_annotations(root: Path, edit) -> None:
    """Change the image and the annotation of the first image."""
    content = json.loads((root / JSON).read_text())
    edit(content['images'][0], content['annotations'][0])
    (root / JSON).write_text(json.dumps(content))


def test_same_results_as_mmdet(shapes):
    for ours, stock in zip(dataset(shapes), dataset(shapes, scope=''), strict=True):
        assert np.array_equal(ours['inputs'], stock['inputs'])
        ours, stock = ours['data_samples'], stock['data_samples']
        assert ours.gt_sem_seg.sem_seg.dtype == stock.gt_sem_seg.sem_seg.dtype
        assert np.array_equal(ours.gt_sem_seg.sem_seg, stock.gt_sem_seg.sem_seg)
        masks = ours.gt_instances.masks, stock.gt_instances.masks
        assert masks[0].masks.dtype == masks[1].masks.dtype
        assert np.array_equal(masks[0].masks, masks[1].masks)
        assert ours.gt_instances.labels.tolist() == stock.gt_instances.labels.tolist()
        assert ours.gt_instances.bboxes.tensor.tolist() == stock.gt_instances.bboxes.tensor.tolist()


def test_no_annotations_when_testing(shapes):
    item = dataset(shapes, img='train/')[0]
    assert item['inputs'].shape == (3, 128, 128)
    assert 'gt_sem_seg' not in item['data_samples']


@pytest.mark.parametrize('file', [IMAGE, PNG])
def test_missing_file(root, file):
    (root / file).unlink()
    with pytest.raises(FileNotFoundError, match=file):
        dataset(root)[0]


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize('content', [b'', b'<html>404</html>'])
@pytest.mark.parametrize(('field', 'file'), [('img_path', IMAGE), ('seg_map_path', PNG)])
def test_undecodable_file(root, field, file, content, backend):
    (root / file).write_bytes(content)
    mmcv.use_backend(backend)
    try:
        with pytest.raises(ValueError, match=f'{field} .*{file}'):
            dataset(root)[0]
    finally:
        mmcv.use_backend('cv2')


def test_truncated_image(root):
    (root / IMAGE).write_bytes((root / IMAGE).read_bytes()[:200])
    with pytest.raises(ValueError, match=f'img_path .*{IMAGE}'):
        dataset(root)[0]


def test_image_of_another_size_than_annotated(root):
    edit_annotations(root, lambda image, _: image.update(height=129))
    with pytest.raises(ValueError, match=rf'img_path .*{IMAGE}: .*\(128, 128\).*\(129, 128\)'):
        dataset(root)[0]


def test_png_of_another_size_than_the_image(root):
    cv2.imwrite(str(root / PNG), cv2.imread(str(root / PNG))[:-3])
    with pytest.raises(ValueError, match=rf'seg_map_path .*{PNG}: .*\(125, 128\).*\(128, 128\)'):
        dataset(root)[0]


@pytest.mark.parametrize('thing', [True, False])
def test_segment_that_is_not_in_the_png_is_skipped(root, thing):
    full = dataset(root)[0]['data_samples']
    category = next(i for i, name in enumerate(CLASSES) if (name in THING_CLASSES) == thing)

    def edit(image, annotation):
        segments = annotation['segments_info']
        segments.insert(0, dict(segments[0], id=777, iscrowd=0, category_id=category + 1))

    edit_annotations(root, edit)
    sample = dataset(root)[0]['data_samples']
    assert np.array_equal(sample.gt_instances.masks.masks, full.gt_instances.masks.masks)
    assert sample.gt_instances.labels.tolist() == full.gt_instances.labels.tolist()
    assert sample.gt_instances.bboxes.tensor.tolist() == full.gt_instances.bboxes.tensor.tolist()
    assert np.array_equal(sample.gt_sem_seg.sem_seg, full.gt_sem_seg.sem_seg)


def test_png_without_any_of_the_segments(root):
    edit_annotations(root, lambda _, annotation: annotation.update(
        segments_info=[dict(annotation['segments_info'][0], id=777)]))
    with pytest.raises(ValueError, match=rf'seg_map_path .*{PNG}: .*\[777\]'):
        dataset(root)[0]


@pytest.mark.parametrize('size', [(1, 1), (1, 128), (128, 1)])
def test_png_of_one_row_or_column(root, size):
    """mmdet's own transform squeezes it and fails."""
    def edit(image, annotation):
        image.update(height=size[0], width=size[1])
        annotation['segments_info'] = [dict(annotation['segments_info'][0], id=1, iscrowd=0)]

    edit_annotations(root, edit)
    cv2.imwrite(str(root / IMAGE), np.zeros((*size, 3), np.uint8))
    cv2.imwrite(str(root / PNG), np.full((*size, 3), (0, 0, 1), np.uint8))
    sample = dataset(root)[0]['data_samples']
    assert sample.gt_sem_seg.sem_seg.shape == (1, *size) and (sample.gt_sem_seg.sem_seg != 255).all()
    assert sample.gt_instances.masks.masks.shape[1:] == size
