import pytest
import torch
from detection_cases import match_instances
from golden import Golden, assert_close, assigner_config, cases
from mmengine.structures import InstanceData

from knet_plugin.detection import DiceCost, MaskCost
from knet_plugin.registry import TASK_UTILS

CASES = [name for name in cases('mask_hungarian_assigner_*') if 'zero_gt' not in name]


@pytest.mark.parametrize('name', CASES)
def test_golden(name):
    golden = Golden(name)
    assigner = TASK_UTILS.build(assigner_config(golden.config))
    pred, gt = match_instances(golden)
    actual = {'mask': assigner.mask_cost(pred, gt), 'dice': assigner.dice_cost(pred, gt),
              'total': assigner.cost(pred, gt)}
    if 'scores' in pred:
        actual['cls'] = assigner.cls_cost(pred, gt)
    assert_close(actual, {key: golden[f'out/cost_{key}'] for key in actual}, 1e-5)


def test_perfect_masks_cost_least():
    masks = (torch.rand(4, 9, 11) > 0.5).float()
    pred = InstanceData(masks=masks * 2000 - 1000)
    gt = InstanceData(masks=masks)
    for cost in (MaskCost(), DiceCost()):
        matrix = cost(pred, gt)
        assert (matrix.argmin(dim=0) == torch.arange(4)).all()
        torch.testing.assert_close(matrix.diagonal(), -torch.ones(4), atol=1e-3, rtol=0)


def test_half_precision_is_not_summed_in_half():
    pred = InstanceData(masks=torch.full((2, 512, 512), 20.).half())
    gt = InstanceData(masks=torch.ones(1, 512, 512))
    assert MaskCost()(pred, gt).dtype == torch.float32
    torch.testing.assert_close(DiceCost()(pred, gt), -torch.ones(2, 1))


@pytest.mark.parametrize('cost', [MaskCost, DiceCost])
def test_bad_activation(cost):
    with pytest.raises(ValueError, match="act_mode='relu'"):
        cost(act_mode='relu')


@pytest.mark.parametrize('options', [dict(), dict(act_mode='softmax'), dict(pred_act=False)])
def test_equal_the_plain_equations(options):
    torch.manual_seed(0)
    logits, targets = torch.randn(6, 40, 50).double() * 4, torch.rand(3, 40, 50).double()
    targets[2] = 0
    probabilities = logits.softmax(dim=0) if options.get('act_mode') == 'softmax' else logits.sigmoid()
    masks = logits if options.get('pred_act', True) else probabilities
    p, t = probabilities.flatten(1), targets.flatten(1)
    agreement = -(p @ t.T + (1 - p) @ (1 - t).T) / 2000
    dice = -2 * p @ t.T / (p.square().sum(dim=1)[:, None] + t.square().sum(dim=1) + 0.002)
    pred, gt = InstanceData(masks=masks), InstanceData(masks=targets)
    for cost, expected in ((MaskCost(3, **options), 3 * agreement), (DiceCost(2, **options), 2 * dice)):
        assert torch.allclose(cost(pred, gt).double(), expected, rtol=0, atol=2e-6)
