"""Bad files stop the loading with their name and what is wrong; good ones give what mmdet's own transforms give."""

import json
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
from mmdet.datasets import CocoPanopticDataset
from pycocotools import mask as coco_masks

from knet_plugin.datasets.shapes import CLASSES, STUFF_CLASSES, THING_CLASSES
from knet_plugin.datasets.loading import LoadAnnotations, png_damage

METAINFO = dict(classes=CLASSES, thing_classes=THING_CLASSES, stuff_classes=STUFF_CLASSES)
IMAGE, PNG, JSON = 'train/000000.jpg', 'annotations/panoptic_train/000000.png', 'annotations/panoptic_train.json'


pytestmark = pytest.mark.usefixtures('mmdet_scope')


def dataset(root: Path, scope: str = 'knet_plugin.', **prefix: str) -> CocoPanopticDataset:
    pipeline = [dict(type=f'{scope}LoadImageFromFile'), dict(type=f'{scope}LoadPanopticAnnotations'),
                dict(type='PackDetInputs')]
    prefix = prefix or dict(img='train/', seg='annotations/panoptic_train/')
    return CocoPanopticDataset(ann_file=JSON, data_root=f'{root}/', data_prefix=prefix, metainfo=METAINFO,
                               pipeline=pipeline)


def load_first(root: Path):
    return dataset(root)[0]['data_samples']


def edit_first(root: Path, **segment) -> None:
    """Change the first segment of the first image, or without arguments its size, in the JSON file."""
    content = json.loads((root / JSON).read_text())
    content['annotations'][0]['segments_info'][0].update(segment)
    if not segment:
        content['images'][0]['height'] += 1
    (root / JSON).write_text(json.dumps(content))


def spoil(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == 'empty':
        content.clear()
    elif how == 'text':
        content = bytearray(b'<html>404</html>')
    elif how == 'half':
        del content[len(content) // 2:]
    elif how == 'no end':
        del content[-12:]
    elif how == 'zeros':  # space was reserved, but the writing was interrupted
        content[len(content) // 2:] = bytes(len(content) - len(content) // 2)
    elif how == 'flipped':
        content[len(content) // 2] ^= 0xff
    path.write_bytes(content)


def test_good_files_give_what_mmdet_gives(shapes):
    for ours, stock in zip(dataset(shapes), dataset(shapes, scope=''), strict=True):
        assert np.array_equal(ours['inputs'], stock['inputs'])
        ours, stock = ours['data_samples'], stock['data_samples']
        assert ours.gt_sem_seg.sem_seg.dtype == stock.gt_sem_seg.sem_seg.dtype
        assert np.array_equal(ours.gt_sem_seg.sem_seg, stock.gt_sem_seg.sem_seg)
        masks = ours.gt_instances.masks, stock.gt_instances.masks
        assert masks[0].masks.dtype == masks[1].masks.dtype
        assert np.array_equal(masks[0].masks, masks[1].masks)
        assert (masks[0].height, masks[0].width) == (masks[1].height, masks[1].width)
        assert ours.gt_instances.labels.tolist() == stock.gt_instances.labels.tolist()
        assert ours.gt_instances.bboxes.tensor.tolist() == stock.gt_instances.bboxes.tensor.tolist()
    segments = json.loads((shapes / JSON).read_text())['annotations']
    crowds = sum(segment['iscrowd'] for image in segments for segment in image['segments_info'])
    assert crowds > 0  # or the comparison is not worth much


def test_no_annotations_when_testing(shapes):
    item = dataset(shapes, img='train/')[0]
    assert item['inputs'].shape == (3, 128, 128)
    assert 'gt_sem_seg' not in item['data_samples']


def test_missing_png(root):
    (root / PNG).unlink()
    with pytest.raises(FileNotFoundError, match=rf'seg_map_path .*{PNG}: there is no such file.*data_prefix.seg'):
        load_first(root)


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])  # Pillow reads some damaged files without complaint
@pytest.mark.parametrize(('how', 'problem'), [
    ('empty', 'the file is empty'),
    ('text', 'cannot be decoded'),
    ('half', r'truncated, \d+ bytes end before the chunk IEND'),
    ('no end', r'truncated, \d+ bytes end before the chunk IEND'),
    ('zeros', "check sum of its chunk 'IDAT' at byte 33 is wrong"),
    ('flipped', "check sum of its chunk 'IDAT' at byte 33 is wrong"),
])
def test_damaged_png(root, backend, how, problem):
    spoil(root / PNG, how)
    mmcv.use_backend(backend)
    try:
        with pytest.raises(ValueError, match=rf'seg_map_path .*{PNG}: .*{problem}'):
            load_first(root)
    finally:
        mmcv.use_backend('cv2')


def test_png_damage_finds_every_flipped_byte_and_every_cut(root):
    content = (root / PNG).read_bytes()
    assert png_damage(content) is None
    assert png_damage(content + b'rest') is None
    for position in range(8, len(content)):
        assert png_damage(content[:position])
        flipped = bytearray(content)
        flipped[position] ^= 1
        assert png_damage(bytes(flipped))


def test_png_of_another_size(root):
    path = root / PNG
    cv2.imwrite(str(path), cv2.imread(str(path))[:-3])
    with pytest.raises(ValueError, match=rf'seg_map_path .*{PNG}: the file has 125 x 128 .*image .*{IMAGE} has 128 x '):
        load_first(root)


def test_segment_that_is_not_in_the_png(root):
    edit_first(root, id=777)
    with pytest.raises(ValueError, match=rf'seg_map_path .*{PNG}: no pixel has the segment ids \[777\]'):
        load_first(root)


def test_image_and_png_of_another_size_than_annotated(root):
    edit_first(root)
    with pytest.raises(ValueError, match=rf'img_path .*{IMAGE}: the file has 128 x 128 .*annotation file says 129 x '):
        load_first(root)
    loading = dataset(root)
    loading.pipeline.transforms.pop(0)  # whose error comes first
    with pytest.raises(ValueError, match=rf'seg_map_path .*{PNG}: .*128 x 128 .*annotation file says 129 x 128'):
        loading[0]


def test_missing_image(root):
    (root / IMAGE).unlink()
    with pytest.raises(FileNotFoundError, match=IMAGE):
        load_first(root)


@pytest.mark.parametrize(('how', 'problem'), [
    ('empty', 'the file is empty'), ('text', 'cannot be decoded'), ('half', 'cannot be decoded')])
def test_damaged_image(root, how, problem):
    spoil(root / IMAGE, how)
    with pytest.raises(ValueError, match=f'img_path .*{IMAGE}: .*{problem}'):
        load_first(root)


def test_segment_that_is_listed_twice(root):
    """mmdet would make it four objects."""
    content = json.loads((root / JSON).read_text())
    segments = content['annotations'][0]['segments_info']
    segments.append(segments[0])
    (root / JSON).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf'{PNG}: .*lists the segment ids \[{segments[0]["id"]}\] more than once'):
        load_first(root)


@pytest.mark.parametrize('size', [(1, 1), (1, 128), (128, 1)])
def test_panoptic_png_of_one_row_or_column(root, size):
    """mmdet's own squeezes it and takes what is left for one colour."""
    content = json.loads((root / JSON).read_text())
    segment = content['annotations'][0]['segments_info'][0]
    content['annotations'][0]['segments_info'] = [dict(segment, iscrowd=0)]
    content['images'][0].update(height=size[0], width=size[1])
    (root / JSON).write_text(json.dumps(content))
    cv2.imwrite(str(root / IMAGE), np.zeros((*size, 3), np.uint8))
    cv2.imwrite(str(root / PNG), np.full((*size, 3), [segment['id'] // 256**i % 256 for i in (2, 1, 0)], np.uint8))
    sample = load_first(root)
    label, = sample.gt_sem_seg.sem_seg.unique().tolist()
    assert sample.gt_sem_seg.sem_seg.shape == (1, *size) and label != 255
    assert sample.gt_instances.masks.masks.shape[1:] == size


def drawn(segmentation, size=(20, 30)):
    """The masks of one object, and whether it is ignored."""
    results = dict(img_path='images/5.jpg', ori_shape=size, instances=[
        dict(bbox=[1, 2, 3, 4], bbox_label=0, ignore_flag=0, mask=segmentation)])
    results = LoadAnnotations(with_mask=True)(results)
    return results['gt_masks'].masks, results['gt_ignore_flags'].tolist()


def compressed(mask):
    rle = coco_masks.encode(np.asfortranarray(mask))
    return dict(rle, counts=rle['counts'].decode())


@pytest.mark.parametrize(('segmentation', 'problem'), [
    (None, 'it is missing'),
    ([], 'it is missing'),
    ('polygon', 'list of polygons or a dict with an RLE, got polygon'),
    ([[float('nan')] * 6], 'not finite or beyond'),
    ([[0, 0, 1e9, 0, 1e9, 1e9]], 'not finite or beyond 1e\\+06 pixels'),  # kills the process in mmdet's own
    ([['0', '1', '2', '3', '4', '5']], "flat list of numbers, got \\['0', '1'"),
    ([[[0, 0], [3, 3], [4, 5]]], 'flat list of numbers, got \\[\\[0, 0\\]'),
    ([7], 'flat list of numbers, got 7'),
    (dict(size=[10, 10], counts=[0, 100]), r'size \[10, 10\] \(height, width\), but the image \[20, 30\]'),
    (dict(size=[20, 30], counts=[5]), r'add up to the 600 pixels of the image, got \[5\]'),
    (dict(size=[20, 30], counts=[0, 700]), r'got \[0, 700\]'),
    (dict(size=[20, 30], counts=[0, 605, -5]), r'got \[0, 605, -5\]'),
    (dict(size=[20, 30], counts=['600']), r"got \['600'\]"),
    (dict(size=[20, 30], counts='abc'), 'got abc'),
    (dict(compressed(np.ones((10, 10), np.uint8)), size=[20, 30]), 'add up to the 600 pixels'),
])
def test_segmentation_that_cannot_be_drawn(segmentation, problem):
    with pytest.raises(ValueError, match=f'in the box .*1, 2, 3, 4.* of img_path images/5.jpg: .*{problem}'):
        drawn(segmentation)


@pytest.mark.parametrize('segmentation', [[[0, 0, 5, 5]], [[]], [[0, 0, 5, 0, 5, 5, 0]], dict(size=[20, 30])])
def test_segmentation_that_mmdet_ignores(segmentation):
    assert drawn(segmentation)[1] == [True]


def test_run_lengths_of_any_mask():
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = (rng.random(rng.integers(1, 70, 2)) < rng.random()).astype(np.uint8)
        masks, ignored = drawn(compressed(mask), mask.shape)
        assert np.array_equal(masks[0], mask) and ignored == [False]
