"""Bad files stop the loading with their name and what is wrong; good ones give what mmdet's own transforms give."""

import json
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
from mmdet.datasets import CocoPanopticDataset

from knet_plugin.datasets import CLASSES, STUFF_CLASSES, THING_CLASSES
from knet_plugin.detection.loading import png_damage

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
