import itertools

import pytest
import torch
from detection_cases import match_instances
from golden import Golden, assigner_config, cases
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData

from knet_plugin.detection import MaskHungarianAssigner, mask_hungarian_assigner
from knet_plugin.registry import TASK_UTILS


@pytest.mark.parametrize('name', cases('mask_hungarian_assigner_*'))
def test_golden(name):
    golden = Golden(name)
    result = TASK_UTILS.build(assigner_config(golden.config)).assign(*match_instances(golden))
    if 'degenerate' in name:
        # Differs on purpose: where topk x objects exceeds the kernels, the official code matches kernels that are
        # taken already once more. Here every kernel is matched once, the whole rounds as without the last one.
        objects, kernels = len(golden['in/gt_labels']), len(golden['in/mask_pred'])
        whole = TASK_UTILS.build(assigner_config(dict(golden.config, topk=kernels // objects))).assign(
            *match_instances(golden))
        matched = whole.gt_inds > 0
        assert matched.sum() == kernels // objects * objects <= kernels < 3 * objects
        assert torch.equal(result.gt_inds[matched], whole.gt_inds[matched])
        assert (result.gt_inds > 0).all() and not torch.equal(result.gt_inds, golden['out/gt_inds'])
        return
    assert torch.equal(result.gt_inds, golden['out/gt_inds'])
    assert torch.equal(result.labels, golden['out/labels'])


def random_instances(kernels, objects, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (InstanceData(masks=torch.randn(kernels, 6, 7, generator=generator),
                         scores=torch.randn(kernels, 3, generator=generator)),
            InstanceData(masks=torch.rand(objects, 6, 7, generator=generator),
                         labels=torch.randint(3, (objects, ), generator=generator)))


def test_no_other_assignment_is_cheaper():
    pred, gt = random_instances(5, 3)
    assigner = MaskHungarianAssigner()
    cost = assigner.cost(pred, gt)
    result = assigner.assign(pred, gt)
    kernels = [(result.gt_inds == k + 1).nonzero().item() for k in range(3)]
    best = min(sum(cost[kernel, k] for k, kernel in enumerate(chosen))
               for chosen in itertools.permutations(range(5), 3))
    torch.testing.assert_close(cost[kernels, range(3)].sum(), best)


def test_permuting_kernels_and_objects_permutes_the_assignment():
    pred, gt = random_instances(8, 4)
    kernels, objects = torch.randperm(8), torch.randperm(4)
    plain = MaskHungarianAssigner().assign(pred, gt)
    permuted = MaskHungarianAssigner().assign(pred[kernels], gt[objects])
    matched = permuted.gt_inds > 0
    assert torch.equal(objects[permuted.gt_inds[matched] - 1] + 1, plain.gt_inds[kernels][matched])
    assert torch.equal(permuted.labels, plain.labels[kernels])


def test_batch_is_many_times_one():
    pairs = [random_instances(8, objects, seed=objects) for objects in (3, 0, 12)]
    assigner = MaskHungarianAssigner()
    together = assigner.assign_batch(*zip(*pairs, strict=True), img_metas=[{}] * 3)
    for result, pair in zip(together, pairs, strict=True):
        alone = assigner.assign(*pair)
        assert torch.equal(result.gt_inds, alone.gt_inds) and torch.equal(result.labels, alone.labels)


@pytest.mark.parametrize('objects', [0, 1, 8, 30])
def test_as_many_matches_as_there_can_be(objects):
    result = MaskHungarianAssigner().assign(*random_instances(8, objects))
    assert (result.gt_inds > 0).sum() == min(8, objects)
    assert ((result.labels >= 0) == (result.gt_inds > 0)).all()


def test_topk_gives_each_object_k_kernels():
    result = MaskHungarianAssigner(topk=3).assign(*random_instances(20, 4))
    assert result.gt_inds.bincount().tolist() == [8, 3, 3, 3, 3]


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf')])
def test_costs_that_are_not_finite(bad, caplog):
    pred, gt = random_instances(6, 3)
    pred.scores[2] = float('nan')
    pred.masks[4] = bad
    logger = MMLogger.get_instance('assigner-test')
    logger.addHandler(caplog.handler)
    result = MaskHungarianAssigner().assign(pred, gt, dict(img_path='images/7.jpg'), stage='stage 2')
    assert (result.gt_inds > 0).sum() == 3
    assert result.gt_inds[2] == 0  # there are better ones
    assert 'costs of stage 2 are not finite in images/7.jpg' in caplog.text


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_autocast_does_not_touch_the_costs(dtype):
    """At the size of COCO's masks the sums over pixels leave float16's range."""
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(3, 200, 336, generator=generator) > 0.97).float()
    noise = torch.randn(5, 200, 336, generator=generator)
    noise[:3] += 8 * masks - 6
    pred = InstanceData(masks=noise, scores=torch.randn(5, 3, generator=generator))
    gt = InstanceData(masks=masks, labels=torch.tensor([0, 1, 2]))
    assigner = MaskHungarianAssigner()
    expected = assigner.cost(pred, gt)
    with torch.autocast('cpu', dtype):
        assert torch.equal(assigner.cost(pred, gt), expected)
    assert expected.isfinite().all()


def test_all_costs_not_finite_still_match():
    pred, gt = random_instances(6, 3)
    pred.masks[:] = float('nan')
    assert (MaskHungarianAssigner().assign(pred, gt).gt_inds > 0).sum() == 3


@pytest.mark.parametrize('options', [dict(), dict(dice_cost=dict(type='knet_plugin.DiceCost', act_mode='softmax'))])
def test_masks_are_compared_once(options, monkeypatch):
    """Unless the costs see other probabilities. The result is that of the costs alone."""
    pred, gt = random_instances(6, 3)
    assigner = MaskHungarianAssigner(**options)
    expected = sum(cost(pred, gt) for cost in (assigner.mask_cost, assigner.dice_cost, assigner.cls_cost))
    made = []
    real = mask_hungarian_assigner.MaskOverlaps
    monkeypatch.setattr(mask_hungarian_assigner, 'MaskOverlaps', lambda *args: made.append(real(*args)) or made[-1])
    torch.testing.assert_close(assigner.cost(pred, gt), expected)
    assert len(made) == 1 + bool(options)


def test_a_cost_of_another_kind():
    pred, gt = random_instances(6, 3)
    assigner = MaskHungarianAssigner(dice_cost=dict(type='mmdet.DiceCost', weight=5, pred_act=True))
    expected = sum(cost(pred, gt) for cost in (assigner.mask_cost, assigner.dice_cost, assigner.cls_cost))
    torch.testing.assert_close(assigner.cost(pred, gt), expected)


def test_bfloat16_deviates_within_its_bound():
    generator = torch.Generator().manual_seed(0)
    targets = torch.zeros(4, 100, 152)
    for i, side in enumerate((3, 20, 60, 100)):
        targets[i, :side, :side] = 1
    pred = InstanceData(masks=torch.cat([8 * targets - 4, torch.zeros(4, 100, 152)]) +
                        torch.randn(8, 100, 152, generator=generator))
    gt = InstanceData(masks=targets, labels=torch.arange(4))
    plain, rounded = MaskHungarianAssigner(), MaskHungarianAssigner(dtype='bfloat16')
    difference = (rounded.cost(pred, gt) - plain.cost(pred, gt)).abs().max()
    assert 0 < float(difference) <= 0.024 * (1 + 4)
    assert torch.equal(rounded.assign(pred, gt).gt_inds, plain.assign(pred, gt).gt_inds)


def test_bad_options():
    with pytest.raises(ValueError, match='topk=0'):
        MaskHungarianAssigner(topk=0)
    with pytest.raises(ValueError, match="dtype='float16'"):
        MaskHungarianAssigner(dtype='float16')
    with pytest.raises(ValueError, match="dtype='bfloat16' is for MaskCost and DiceCost only, but dice_cost is a "):
        MaskHungarianAssigner(dice_cost=dict(type='mmdet.DiceCost'), dtype='bfloat16')
