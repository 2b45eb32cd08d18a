"""Tiles, bounds and read-outs against the masks made in full."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import Operators

from knet_plugin.detection import resized_masks
from knet_plugin.detection.resized_masks import ResizedMasks, above, owners

sides = st.integers(1, 90)
ways = pytest.mark.parametrize('most', [0., 1.], ids=['row by row', 'tile by tile'])


@contextlib.contextmanager
def settings_of(**values):
    """``MOST=0`` makes all rows of tiles, ``MOST=1`` tile after tile, however many are needed."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setattr(resized_masks, name, value)
        yield


@st.composite
def cases(draw):
    """Masks of some smoothness, in one of two precisions, with sizes that need not fit one another, and scores."""
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
    counted = torch.rand(number, generator=generator) > 0.3
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    return masks.to(dtype), (padded, image, result), scores.to(dtype), counted


def rounding(masks):
    return 1e-5 if masks.dtype == torch.float32 else 1e-12


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
    assert maps.dtype == masks.dtype and maps.shape == full.shape
    assert torch.allclose(maps.double(), full, rtol=0, atol=rounding(masks))
    assert int(resized.areas.sum()) == full[0].numel()
    assert (tiles >= resized.low[..., None, None] - 1e-6).flatten(-2).sum(-1).ge(resized.areas).all()
    assert (tiles <= resized.high[..., None, None] + 1e-6).all()


@given(cases(), st.sampled_from([1, 2**17, 2**22]))
@settings(max_examples=100, deadline=None)
def test_rows_of_tiles_are_those_tiles(case, chunk):
    masks, sizes, _, _ = case
    with settings_of(CHUNK=chunk):
        resized = ResizedMasks(masks, *sizes)
        tiles = torch.full((*resized.low.shape, 32, 32), -1, dtype=masks.dtype)
        for row, chosen, values in resized.strips():
            assert tiles[chosen, row].eq(-1).all()  # once only
            tiles[chosen, row] = values.transpose(0, 1)
    assert torch.allclose(resized.assemble(tiles).double(), in_full(masks, *sizes), rtol=0, atol=rounding(masks))


@given(cases(), st.sampled_from([0., 0.1, 0.5, 0.9, 1.]), st.sampled_from([1, 2**22]), st.sampled_from([0, 0.25, 1]))
@settings(max_examples=200, deadline=None)
def test_above_is_the_comparison_in_full(case, threshold, chunk, most):
    masks, sizes, _, _ = case
    full = in_full(masks, *sizes)
    clear = (full - threshold).abs() > rounding(masks)
    with settings_of(CHUNK=chunk, MOST=most):
        found = above(ResizedMasks(masks, *sizes), threshold)
    assert found.is_contiguous() and found.shape == full.shape
    assert torch.equal(found[clear], (full > threshold)[clear])


@given(cases(), st.sampled_from([1, 2**22]), st.sampled_from([0, 0.25, 1]))
@settings(max_examples=200, deadline=None)
def test_owners_are_the_argmax_in_full(case, chunk, most):
    masks, sizes, scores, counted = case
    full = in_full(masks, *sizes)
    with settings_of(CHUNK=chunk, MOST=most):
        owner, claimed = owners(ResizedMasks(masks, *sizes), scores, counted)
    products = scores.double()[:, None, None] * full
    chosen = products.gather(0, owner[None])[0]
    assert owner.shape == full.shape[1:] and torch.allclose(chosen, products.amax(0), rtol=rounding(masks), atol=1e-30)
    ties = (full - 0.5).abs() < rounding(masks)
    wanted = (full >= 0.5).flatten(1).sum(1)
    assert ((claimed - wanted).abs() <= ties.flatten(1).sum(1))[counted].all()
    assert not claimed[~counted].any()


@ways
@pytest.mark.parametrize('chunk', [1, 2**22])
def test_the_first_of_equal_masks_wins(most, chunk):
    masks = torch.full((3, 20, 20), 0.7)
    sizes = [(80, 80)] * 3
    with settings_of(MOST=most, CHUNK=chunk):
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


@ways
def test_what_is_not_a_number_spoils_its_own_tile_of_its_own_mask_only(most):
    masks = torch.full((2, 32, 32), 0.2)
    masks[1, :, 16:] = 0.9
    masks[0, 3, 3] = float('nan')
    sizes = [(64, 64)] * 3
    with settings_of(MOST=most):
        found = above(ResizedMasks(masks, *sizes), 0.5)
        owner, claimed = owners(ResizedMasks(masks, *sizes), torch.tensor([0.9, 0.5]), torch.ones(2).bool())
    assert not found[0].any() and int(found[1].sum()) == 64 * 32
    assert claimed.tolist() == [0, 64 * 32] and owner[:, 33:].all()
    assert not owner[32:, :31].any()


@ways
def test_no_score_at_all(most):
    with settings_of(MOST=most):
        owner, _ = owners(ResizedMasks(torch.rand(3, 8, 8), *[(32, 32)] * 3), torch.zeros(3), torch.ones(3).bool())
    assert not owner.any()


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('number, contenders', [(24, 24), (24, 3), (3, 3)])
@ways
def test_chunks_bound_what_is_made_besides_the_result(most, number, contenders, dtype):
    """Also where all tiles of the image are contended, each by few or by many masks."""
    side, chunk, generator = 1024, 2**19, torch.Generator().manual_seed(0)
    masks = torch.full((number, 64, 64), 0.01, dtype=dtype)
    masks[:contenders] = torch.rand(contenders, 64, 64, generator=generator, dtype=dtype)
    sizes, scores = [(side, side)] * 3, torch.ones(number, dtype=dtype)
    with settings_of(MOST=most, CHUNK=chunk), Operators() as operators:
        above(ResizedMasks(masks, *sizes), 0.5)
    made = [nbytes for *_, nbytes in operators.called if nbytes != number * side**2]  # the result
    bound = max(chunk, masks.nbytes, 24 * number * (side // 32)**2)  # three indices for each tile
    assert max(made) <= max(bound, number * side**2 // 32)  # a row of pixels for each row of tiles
    with settings_of(MOST=most, CHUNK=chunk), Operators() as operators:
        owners(ResizedMasks(masks, *sizes), scores, torch.ones(number).bool())
    images = [nbytes for *_, nbytes in operators.called if nbytes in (4 * side**2, 8 * side**2)]
    assert len(images) < 8  # owners and their products
    made = [nbytes for *_, nbytes in operators.called if nbytes not in (4 * side**2, 8 * side**2)]
    assert max(made) <= bound


def products(masks, most):
    """Types of the factors of all matrix products of a read-out."""
    with settings_of(MOST=most), Operators() as operators:
        resized = ResizedMasks(masks, *[(64, 64)] * 3)
        above(resized, 0.5)
        owners(resized, torch.ones(len(masks), dtype=masks.dtype), torch.ones(len(masks)).bool())
    called = [types for name, types, _ in operators.called if name in ('mm', 'bmm')]
    assert called
    return set().union(*called)


@ways
@pytest.mark.parametrize('precision', ['high', 'medium'])
def test_products_are_exact_where_torch_may_round_their_factors(most, precision):
    masks = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert products(masks, most) == {torch.float32}
    torch.set_float32_matmul_precision(precision)
    try:
        assert products(masks, most) == {torch.float64}
        with settings_of(MOST=most):
            found = above(ResizedMasks(masks, *[(64, 64)] * 3), 0.5)
        assert torch.get_float32_matmul_precision() == precision  # that of all other threads, too
    finally:
        torch.set_float32_matmul_precision('highest')
    assert torch.equal(found, in_full(masks, *[(64, 64)] * 3) > 0.5)


@pytest.mark.skipif(not hasattr(torch.backends, 'fp32_precision'), reason='has one setting for all backends')
def test_products_are_exact_where_one_backend_may_round(monkeypatch):
    """torch then refuses to say what holds for all."""
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = 'tf32'
    try:
        assert products(torch.rand(3, 16, 16), most=1) == {torch.float64}
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
    assert products(torch.rand(3, 16, 16), most=1) == {torch.float32}


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize('mode', [torch.inference_mode, lambda: torch.device('meta'),
                                  lambda: default_dtype(torch.float64)])
def test_what_is_kept_for_the_next_image_does_not_depend_on_the_first_ones_mode(mode):
    resized_masks._axis.cache_clear()
    masks = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0))
    with mode():
        ResizedMasks(masks, *[(32, 32)] * 3)
    masks.requires_grad_()
    resized = ResizedMasks(masks, *[(32, 32)] * 3)
    assert resized_masks._axis.cache_info().hits
    values = resized.values(*torch.zeros(3, 1, dtype=torch.long))
    values.sum().backward()  # a tensor of inference mode cannot be kept for it
    assert values.dtype == torch.float32 and masks.grad.sum() > 0
