import numpy as np
import pytest
from pycocotools import mask as mask_utils

from knet_plugin.datasets.segmentations import is_box, rle_problem, usable


@pytest.mark.parametrize('share', [0, 0.01, 0.5, 0.99, 1])
@pytest.mark.parametrize('size', [(1, 1), (1, 70), (70, 1), (40, 50), (300, 400)])
def test_compressed_masks_cover_their_image(size, share):
    mask = np.random.default_rng(0).random(size) < share
    rle = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
    rle['counts'] = rle['counts'].decode()
    assert rle_problem(rle, size) is None
    assert rle_problem(rle, (size[0] + 1, size[1])) is not None
    assert rle_problem(dict(rle, size=[size[0] + 1, size[1]]), (size[0] + 1, size[1])) is not None
    assert rle_problem(dict(rle, counts=rle['counts'] + '1'), size) is not None


def test_good_parts_are_kept():
    triangle = [0, 0, 5, 0, 5, 5]
    assert usable([[], [1, 2, 3], triangle, [float('inf')] * 6], (9, 9)) == ([triangle], None)
    assert usable(triangle, (9, 9)) == ([triangle], None)
    assert usable([], (9, 9))[1]


@pytest.mark.parametrize(('value', 'expected'), [([1, 2, 3.5, 4], True), ([1, 2, 3], False), (None, False),
                                                 ([1, 2, 3, '4'], False), ({}, False)])
def test_boxes(value, expected):
    assert is_box(value) == expected
