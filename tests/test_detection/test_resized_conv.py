import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from knet_plugin.core.mask_ops import resize
from knet_plugin.detection import resized_conv
from knet_plugin.detection.resized_conv import resize_and_convolve

sides = st.integers(1, 13)


@given(sides, sides, st.floats(1, 4), st.floats(1, 4), st.integers(0, 3), st.booleans(), st.booleans(),
       st.integers(0, 1000))
@settings(max_examples=150, deadline=None)
def test_equals_resize_then_convolve(height, width, taller, wider, batch, bias, double, seed):
    torch.manual_seed(seed)
    dtype = torch.float64 if double else torch.float32
    conv = nn.Conv2d(96, 5, 3, padding=1, bias=bias).to(dtype)
    maps = torch.randn(batch, 96, height, width, dtype=dtype)
    size = int(taller * height), int(wider * width)
    expected = conv(resize(maps, size))
    with torch.no_grad():
        result = resize_and_convolve(conv, maps, size)
    assert result.shape == expected.shape and result.dtype == dtype
    assert torch.allclose(result, expected, atol=1e-12 if double else 2e-5)


@pytest.mark.parametrize('options,made', [
    ({}, False), (dict(grad=True), True), (dict(size=(4, 5)), True), (dict(channels=2), True), (dict(hook=True), True),
    (dict(autocast=True), True)])
def test_the_resized_map_is_made_only_where_it_must_be(options, made, monkeypatch):
    calls = []
    monkeypatch.setattr(resized_conv, 'resize', lambda maps, size: calls.append(size) or resize(maps, size))
    channels, grad = options.get('channels', 96), options.get('grad', False)
    conv = nn.Conv2d(channels, 2, 3, padding=1)
    seen = []
    if options.get('hook'):
        conv.register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.set_grad_enabled(grad), torch.autocast('cpu', torch.bfloat16, enabled=options.get('autocast', False)):
        result = resize_and_convolve(conv, torch.randn(1, channels, 4, 5), options.get('size', (8, 10)))
    assert bool(calls) is made and result.requires_grad is grad and bool(seen) is options.get('hook', False)
