"""Tiles, bounds and read-outs against the masks made in full."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from knet_plugin.detection import resized_masks
from knet_plugin.detection.resized_masks import ResizedMasks, above, owners

sides = st.integers(1, 90)


@st.composite
def cases(draw):
    """Masks of some smoothness, with sizes that need not fit one another, and scores."""
    seed, number = draw(st.integers(0, 2**31)), draw(st.integers(1, 12))
    generator = torch.Generator().manual_seed(seed)
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    coarse = (draw(st.integers(1, height)), draw(st.integers(1, width)))
    logits = torch.randn(1, number, *coarse, generator=generator) * draw(st.sampled_from([0.1, 3., 30.]))
    masks = F.interpolate(logits, (height, width), mode='bilinear')[0].sigmoid()
    padded = (draw(sides), draw(sides))
    image = (draw(st.integers(1, padded[0])), draw(st.integers(1, padded[1])))
    result = draw(st.one_of(st.just(image), st.tuples(sides, sides)))
    scores = torch.rand(number, generator=generator)
    return masks, (padded, image, result), scores, torch.rand(number, generator=generator) > 0.3


def in_full(masks, padded, image, result):
    """(N, H, W), by the two resizes one after the other, in double precision."""
    maps = F.interpolate(masks[None].double(), padded, mode='bilinear')[..., :image[0], :image[1]]
    return F.interpolate(maps, result, mode='bilinear')[0]


@given(cases())
@settings(max_examples=150, deadline=None)
def test_tiles_are_those_of_the_full_masks(case):
    masks, sizes, _, _ = case
    full, resized = in_full(masks, *sizes), ResizedMasks(masks, *sizes)
    everything = resized.low.new_ones(resized.low.shape).nonzero().unbind(1)
    tiles = resized.values(*everything).unflatten(0, resized.low.shape)
    maps = resized.assemble(tiles)
    assert maps.shape == full.shape and torch.allclose(maps.double(), full, atol=1e-5)
    assert int(resized.areas.sum()) == full[0].numel()
    assert (tiles >= resized.low[..., None, None] - 1e-6).flatten(-2).sum(-1).ge(resized.areas).all()
    assert (tiles <= resized.high[..., None, None] + 1e-6).all()


@given(cases(), st.sampled_from([0., 0.1, 0.5, 0.9, 1.]), st.sampled_from([1, 2048]))
@settings(max_examples=150, deadline=None)
def test_above_is_the_comparison_in_full(case, threshold, chunk):
    masks, sizes, _, _ = case
    full = in_full(masks, *sizes)
    clear = (full - threshold).abs() > 1e-5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resized_masks, 'CHUNK', chunk)
        found = above(ResizedMasks(masks, *sizes), threshold)
    assert found.is_contiguous() and found.shape == full.shape
    assert torch.equal(found[clear], (full > threshold)[clear])


@given(cases())
@settings(max_examples=150, deadline=None)
def test_owners_are_the_argmax_in_full(case):
    masks, sizes, scores, counted = case
    full = in_full(masks, *sizes)
    owner, claimed = owners(ResizedMasks(masks, *sizes), scores, counted)
    products = scores.double()[:, None, None] * full
    chosen = products.gather(0, owner[None])[0]
    assert owner.shape == full.shape[1:] and torch.allclose(chosen, products.amax(0), atol=1e-5)
    ties = (full - 0.5).abs() < 1e-5
    wanted = (full >= 0.5).flatten(1).sum(1)
    assert ((claimed - wanted).abs() <= ties.flatten(1).sum(1))[counted].all()
    assert not claimed[~counted].any()


def test_the_first_of_equal_masks_wins():
    masks = torch.full((3, 20, 20), 0.7)
    sizes = [(80, 80)] * 3
    assert not owners(ResizedMasks(masks, *sizes), torch.full((3, ), 0.5), torch.ones(3).bool())[0].any()
    assert (owners(ResizedMasks(masks, *sizes), torch.tensor([0.5, 0.6, 0.6]), torch.ones(3).bool())[0] == 1).all()


def test_only_contended_tiles_are_made(monkeypatch):
    """Two half planes: the tiles at their border are made once for each, the others never."""
    made = []
    monkeypatch.setattr(ResizedMasks, 'values', lambda self, *places, original=ResizedMasks.values:
                        made.append(len(places[0])) or original(self, *places))
    left = torch.linspace(20, -20, 128).expand(128, -1).sigmoid()
    masks = ResizedMasks(torch.stack([left, 1 - left]), *[(512, 512)] * 3)
    assert masks.grid == (16, 16)
    owner, claimed = owners(masks, torch.ones(2), torch.ones(2).bool())
    assert claimed.tolist() == [256 * 512] * 2 and not owner[:, :256].any() and owner[:, 256:].all()
    assert sum(made) <= 2 * 2 * 16


def test_what_is_not_a_number_spoils_its_own_tile_of_its_own_mask_only():
    masks = torch.full((2, 32, 32), 0.2)
    masks[1, :, 16:] = 0.9
    masks[0, 3, 3] = float('nan')
    sizes = [(64, 64)] * 3
    found = above(ResizedMasks(masks, *sizes), 0.5)
    assert not found[0].any() and int(found[1].sum()) == 64 * 32
    owner, claimed = owners(ResizedMasks(masks, *sizes), torch.tensor([0.9, 0.5]), torch.ones(2).bool())
    assert claimed.tolist() == [0, 64 * 32] and owner[:, 33:].all()
    assert not owner[32:, :31].any()


def test_no_score_at_all():
    owner, _ = owners(ResizedMasks(torch.rand(3, 8, 8), *[(32, 32)] * 3), torch.zeros(3), torch.ones(3).bool())
    assert not owner.any()
