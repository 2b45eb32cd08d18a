import pytest
import torch
from operators import Operators
from torch import nn

from knet_plugin.core import KernelUpdateHead, feature_map
from knet_plugin.core.activation_checkpointing import checkpointed, has_statistics


def kept_by(function, *args):
    """Result, and the sizes of what the backward pass keeps."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda value: kept.append(value.numel()) or value,
                                                  lambda value: value):
        return function(*args), kept


def test_same_gradients_from_less():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 64), nn.Sigmoid(), nn.Linear(64, 64), nn.Sigmoid(), nn.Linear(64, 1))
    inputs = torch.randn(100, 4, requires_grad=True)
    plain, kept = kept_by(layers, inputs)
    again, kept_again = kept_by(checkpointed, layers, inputs)
    assert torch.equal(again, plain)
    assert max(kept) >= 6400 and sum(kept_again) == inputs.numel()
    values = (inputs, *layers.parameters())
    for left, right in zip(torch.autograd.grad(plain.sum(), values), torch.autograd.grad(again.sum(), values),
                           strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize('training', [True, False])
def test_batch_norm_counts_a_batch_once(training):
    norm = nn.BatchNorm1d(3).train(training)
    assert has_statistics(norm) is training and not has_statistics(nn.LayerNorm(3))
    checkpointed(norm, torch.randn(5, 3, requires_grad=True), parts=norm).sum().backward()
    assert norm.num_batches_tracked == int(training)


@pytest.mark.parametrize('activation', ['HardMask', 'SoftmaxMask'])
@pytest.mark.parametrize('kernel_size', [1, 3])
def test_the_product_of_masks_and_features_is_made_once(activation, kernel_size, monkeypatch):
    """Recomputing M repeats no matrix product on the map, and the gradients are those of keeping everything."""
    torch.manual_seed(0)
    head = KernelUpdateHead(8, kernel_size, dict(type=f'knet_plugin.{activation}'), interaction=None)
    inputs = [torch.randn(shape, requires_grad=True) for shape in (
        (2, 8, 9, 14), (2, 5, 8, kernel_size, kernel_size), (2, 5, 9, 14))]

    def step():
        with Operators() as operators:
            update = head(*inputs)
            (update.kernels.square().sum() + update.mask_logits.square().sum()).backward()
        products = sum('mm' in name for name, *_ in operators.called)
        values = [*update[:2], *(value.grad for value in (*inputs, *head.parameters()) if value.grad is not None)]
        head.zero_grad()
        for value in inputs:
            value.grad = None
        return products, values

    products, values = step()
    monkeypatch.setattr(feature_map, 'checkpointed', lambda function, *args: function(*args))
    plain_products, plain = step()
    assert products == plain_products
    assert all(torch.equal(left, right) for left, right in zip(values, plain, strict=True))
