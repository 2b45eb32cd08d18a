import pytest
import torch
from operators import Operators

from knet_plugin.core.feature_map import group_features

HALVES = [torch.float16, torch.bfloat16]


def grouped(masks, features, dtype, autocast):
    """Eq. 3 on inputs of that type, or on float32 ones under autocast."""
    with torch.autocast('cpu', dtype, enabled=autocast):
        return group_features(masks, features) if autocast else group_features(masks.to(dtype), features.to(dtype))


@pytest.mark.parametrize('autocast', [True, False])
@pytest.mark.parametrize('dtype', HALVES)
def test_large_sums_and_their_gradients_are_finite(dtype, autocast):
    masks, features = torch.ones(1, 2, 300, 300), torch.full((1, 3, 300, 300), 3.)
    features.requires_grad_()
    result = grouped(masks, features, dtype, autocast)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, torch.full((1, 2, 3), 270000.), rtol=4e-3, atol=0)
    for gradient in (1e-6, 1., 70., 1e3):
        features.grad = None
        result.backward(torch.full_like(result, gradient), retain_graph=True)
        torch.testing.assert_close(features.grad, torch.full_like(features, 2 * gradient), rtol=1e-2, atol=6e-8)


@pytest.mark.parametrize('features', [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize('dtype', HALVES)
def test_factors_under_autocast(features, dtype):
    """Float16 is left; bfloat16 is not, also for what a norm has brought back to float32."""
    with Operators() as operators:
        grouped(torch.rand(2, 5, 4, 6).to(features), torch.randn(2, 8, 4, 6).to(features), dtype, autocast=True)
    expected = {(torch.float32, torch.bfloat16): torch.bfloat16}.get((features, dtype), features)
    assert [types for name, types, _ in operators.called if name == 'bmm'] == [{expected}]


def test_float16_is_summed_in_float32():
    torch.manual_seed(0)
    masks, features = torch.rand(2, 5, 40, 60).half(), torch.randn(2, 8, 40, 60).half()
    expected = torch.einsum('bnhw,bchw->bnc', masks.double(), features.double())
    assert float((group_features(masks, features) - expected).abs().max()) < 1e-5 * float(expected.abs().max())
