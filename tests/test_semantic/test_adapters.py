import pytest
import torch

from knet_plugin.semantic.adapters import exchange


@pytest.mark.parametrize('outputs', [(1, ), [2, (3, )], dict(a=[4], b=5)])
def test_exchange(outputs):
    """By identity, wherever it is, and into a copy."""
    old, new = torch.zeros(1), torch.ones(1)
    assert exchange(outputs, old, new) == (outputs, 0)
    found, count = exchange(dict(x=outputs, y=(old, [old])), old, new)
    assert count == 2 and found['x'] == outputs and found['y'][0] is new and found['y'][1][0] is new
    assert exchange(old, old, new) == (new, 1)
    assert exchange(torch.zeros(1), old, new)[1] == 0  # equal is not the same
