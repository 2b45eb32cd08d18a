import pytest
import torch

from knet_plugin.core import HardMask, SigmoidMask, SoftmaxMask

LOGITS = torch.tensor([-3., 0., 2.]).view(1, 3, 1, 1)


def test_softmax_shares_every_pixel_out():
    torch.testing.assert_close(SoftmaxMask()(torch.randn(2, 5, 3, 4)).sum(1), torch.ones(2, 3, 4))


def test_sigmoid_looks_at_each_kernel_alone():
    torch.testing.assert_close(SigmoidMask()(LOGITS), LOGITS.sigmoid())
    torch.testing.assert_close(SigmoidMask()(LOGITS[:, :1]), torch.tensor(0.0474259).view(1, 1, 1, 1))


@pytest.mark.parametrize(('threshold', 'expected'), [(0.5, [0, 0, 1]), (0.4, [0, 1, 1]), (0.9, [0, 0, 0])])
def test_hard_mask_is_strictly_above_the_threshold(threshold, expected):
    assert HardMask(threshold)(LOGITS).flatten().tolist() == expected


def test_area_normalized_weights_of_a_mask_sum_to_one_and_an_empty_mask_has_none():
    logits = torch.full((1, 3, 300, 300), -1.)
    logits[0, 0, :, 10:] = 1  # more pixels than float16 can count
    logits[0, 1, 4, 5] = 1
    for dtype in (torch.float32, torch.float16):
        weights = HardMask(area_normalized=True)(logits.to(dtype))
        torch.testing.assert_close(weights.sum(dim=(-2, -1)), torch.tensor([[1., 1., 0.]]))
        torch.testing.assert_close(weights > 0, logits > 0)
