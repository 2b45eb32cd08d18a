import numpy as np
import pytest
from pycocotools import mask as mask_utils

from knet_plugin.datasets.segmentations import rle_problem


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
