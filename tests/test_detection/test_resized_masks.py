"""Strips of resized masks against the masks resized in full."""

import plain_knet
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import Operators

from knet_plugin.detection.resized_masks import Sizes, assign_pixels, binarize, resized_strips

sides = st.integers(1, 90)


@st.composite
def cases(draw):
    """Logits of some smoothness, sizes that need not fit one another, and scores."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    number, height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(st.integers(1, 40))
    coarse = draw(st.integers(1, height)), draw(st.integers(1, width))
    logits = torch.randn(1, number, *coarse, generator=generator) * draw(st.sampled_from([0.1, 3., 30.]))
    padded = draw(sides), draw(sides)
    image = draw(st.integers(1, padded[0])), draw(st.integers(1, padded[1]))
    result = draw(st.one_of(st.just(image), st.tuples(sides, sides)))
    return (F.interpolate(logits, (height, width), mode='bilinear')[0], Sizes(padded, image, result),
            torch.rand(number, generator=generator))


@given(cases())
@settings(max_examples=200, deadline=None)
def test_strips_are_the_masks_resized_in_full(case):
    logits, sizes, scores = case
    full = plain_knet.full_masks(logits.double(), *sizes)
    found = torch.full(full.shape, -1.)
    for group, rows, strip in resized_strips(logits.sigmoid(), sizes):
        assert found[group, rows].eq(-1).all()  # each pixel only once
        found[group, rows] = strip.transpose(0, 1)
    assert (found - full).abs().max() < 1e-5

    owner, areas = assign_pixels(logits.sigmoid(), scores, sizes)
    products = scores[:, None, None] * full
    torch.testing.assert_close(products.gather(0, owner[None])[0], products.amax(dim=0), rtol=1e-5, atol=1e-5)
    ties = ((full - 0.5).abs() < 1e-5).flatten(1).sum(dim=1)
    assert ((areas - (full >= 0.5).flatten(1).sum(dim=1)).abs() <= ties).all()

    for threshold in (0., 0.5, 0.9):
        clear = (full - threshold).abs() > 1e-5
        assert torch.equal(binarize(logits.sigmoid(), threshold, sizes)[clear], (full > threshold)[clear])


@pytest.mark.parametrize('number', [3, 40])
def test_the_first_of_equal_masks_wins(number):
    sizes, masks = Sizes((80, 80), (80, 80), (80, 80)), torch.full((number, 20, 20), 0.7)
    assert not assign_pixels(masks, torch.full((number, ), 0.5), sizes)[0].any()
    scores = torch.full((number, ), 0.6)
    scores[0] = 0.5
    assert (assign_pixels(masks, scores, sizes)[0] == 1).all()
    assert not assign_pixels(masks, torch.zeros(number), sizes)[0].any()


def test_no_masks():
    assert binarize(torch.zeros(0, 8, 8), 0.5, Sizes((32, 32), (32, 32), (40, 50))).shape == (0, 40, 50)


def test_memory_does_not_grow_with_the_number_of_masks():
    def largest(number):
        with Operators() as operators:
            assign_pixels(torch.rand(number, 32, 32), torch.rand(number), Sizes(*[(256, 512)] * 3))
        return max(nbytes for *_, nbytes in operators.called)

    assert largest(20) == largest(200) < 20 * 256 * 512 * 4
