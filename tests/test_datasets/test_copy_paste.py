import numpy as np
import pytest
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from knet_plugin.datasets.copy_paste import CopyPaste

SIZE = (12, 16)
STUFF, VOID = 2, 255


def results(value, *objects, with_map=True):
    """An image of one value and its objects: (class, first column, last column), all rows high."""
    masks, labels = np.zeros((len(objects), *SIZE), np.uint8), np.full(SIZE, STUFF, np.uint8)
    labels[0] = VOID
    for mask, (label, first, last) in zip(masks, objects, strict=True):
        mask[1:, first:last + 1] = 1
        labels[mask == 1] = label
    bitmaps = BitmapMasks(masks, *SIZE)
    found = dict(img=np.full((*SIZE, 3), value, np.uint8), gt_masks=bitmaps,
                 gt_bboxes=bitmaps.get_bboxes(HorizontalBoxes),
                 gt_bboxes_labels=np.array([label for label, *_ in objects], int),
                 gt_ignore_flags=np.zeros(len(objects), bool))
    return found | (dict(gt_seg_map=labels) if with_map else {})


def pasted(image, other):
    return CopyPaste(selected=False, mask_occluded_thr=0).transform(dict(image, mix_results=[other]))


def test_objects_replace_what_is_under_them_in_all_maps():
    found = pasted(results(10, (0, 0, 5)), results(90, (1, 4, 7)))
    assert found['img'][5, :, 0].tolist() == [10] * 4 + [90] * 4 + [10] * 8
    assert found['gt_seg_map'][5].tolist() == [0] * 4 + [1] * 4 + [STUFF] * 8
    assert (found['gt_seg_map'][0] == VOID).all()
    assert found['gt_bboxes_labels'].tolist() == [0, 1]
    assert found['gt_masks'].masks[:, 5].sum(axis=1).tolist() == [4, 4]
    assert found['gt_bboxes'].tensor.tolist() == [[0, 1, 4, 12], [4, 1, 8, 12]]


def test_an_image_without_objects_changes_nothing():
    found = pasted(results(10, (0, 0, 5)), results(90))
    assert (found['img'] == 10).all() and found['gt_seg_map'][5].tolist() == [0] * 6 + [STUFF] * 10


def test_data_without_semantic_maps():
    found = pasted(results(10, (0, 0, 5), with_map=False), results(90, (1, 4, 7), with_map=False))
    assert 'gt_seg_map' not in found and found['gt_bboxes_labels'].tolist() == [0, 1]


@pytest.mark.parametrize('number', [1, 3])
def test_every_index_exists(number):
    """mmdet's own transform also draws the number of images."""
    assert {CopyPaste().get_indexes(range(number)) for _ in range(100)} == set(range(number))
