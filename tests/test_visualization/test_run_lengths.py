import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask

from knet_plugin.visualization.run_lengths import decode_columns, run_lengths


def _check(mask: np.ndarray) -> None:
    encoding = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    start, columns = decode_columns(encoding)
    decoded = np.zeros(mask.shape, bool)
    decoded[:, start:start + columns.shape[1]] = columns
    np.testing.assert_array_equal(decoded, mask)
    if columns.size:
        assert columns[:, 0].any() and columns[:, -1].any()


@settings(max_examples=50, deadline=None)
@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_decodes_like_pycocotools(mask: np.ndarray) -> None:
    _check(mask)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10 ** 6))
def test_decodes_long_runs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((300, 400), bool)
    for _ in range(3):
        (top, left), (height, width) = rng.integers(0, 300, 2), rng.integers(1, 200, 2)
        mask[top:top + height, left:left + width] = True
    _check(mask)


@pytest.mark.parametrize('mask', [np.zeros((5, 7)), np.ones((5, 7)), np.eye(6), np.ones((1, 1)), np.zeros((1, 1))])
def test_decodes_simple_masks(mask: np.ndarray) -> None:
    _check(mask.astype(bool))


def test_counts_as_text() -> None:
    encoding = coco_mask.encode(np.asfortranarray(np.eye(30, dtype=np.uint8)))
    np.testing.assert_array_equal(run_lengths(encoding['counts'].decode()), run_lengths(encoding['counts']))
    assert run_lengths(b'').size == 0
