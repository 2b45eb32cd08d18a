import pytest
import torch
import torch.nn.functional as F
from detection_cases import golden_targets
from golden import Golden, assert_close, assert_gradients_close, build, cases, loss_config, update_head_config

from knet_plugin.checkpoint import from_official
from knet_plugin.core.feature_map import resize
from knet_plugin.detection import KNetCriterion, matcher
from knet_plugin.detection import criterion as criterion_module
from knet_plugin.detection.targets import Assignment, SegmentTargets, assign_stuff_kernels

RANK = dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False, loss_weight=0.1)


def mask_losses(criterion, mask_logits, assignment, targets):
    return criterion.mask_losses(mask_logits, assignment, targets, torch.tensor(max(len(assignment.segments), 1)))


def stage_losses(criterion, mask_logits, class_logits, assignment, targets):
    return mask_losses(criterion, mask_logits, assignment, targets) | criterion.class_loss(
        class_logits, assignment, targets, torch.tensor(max(len(assignment.segments), 1)))


def given_assignment(golden, targets):
    """The assignment of a case, and its number of instance kernels."""
    gt_inds = torch.stack([golden['in/assigned_gt_inds_0'], golden['in/assigned_gt_inds_1']])
    images, kernels = gt_inds.nonzero(as_tuple=True)
    first = torch.tensor([0, targets.num_objects[0]])
    return Assignment(images, kernels, first[images] + gt_inds[images, kernels] - 1), gt_inds.shape[1]


@pytest.mark.parametrize('name', cases('det_update_head_*'))
def test_golden_targets_losses_and_gradients(name):
    golden = Golden(name)
    head = build(update_head_config(golden.config, 'HardMask'))
    head.load_state_dict(from_official(golden.state, head))
    targets = golden_targets(golden)
    objects, num_kernels = given_assignment(golden, targets)
    things = golden.config['num_thing_classes']
    stuff = golden.config['num_classes'] - things
    assignment = objects + assign_stuff_kernels(targets, things, num_kernels)
    criterion = build(dict(loss_config(golden.config), num_things_classes=things, num_stuff_classes=stuff))

    kernels = num_kernels + stuff
    labels = torch.full((2, kernels), golden.config['num_classes'])
    labels[assignment.images, assignment.kernels] = targets.labels[assignment.segments]
    assert torch.equal(labels.flatten(), golden['out/target_labels'])
    masks = torch.zeros(2, kernels, *targets.masks.shape[1:])
    masks[assignment.images, assignment.kernels] = targets.masks[assignment.segments]
    assert torch.equal(masks.flatten(0, 1), golden['out/target_mask_targets'])

    inputs = {key: golden[f'in/{key}'].requires_grad_() for key in ('x', 'proposal_feat')}
    update = head(*inputs.values(), golden['in/mask_preds'])
    logits = update.mask_logits
    if size := golden.info.get('mask_shape_argument'):
        logits = resize(logits, size)
    if (stride := golden.config['mask_upsample_stride']) > 1:
        logits = F.interpolate(logits, scale_factor=stride, mode='bilinear')
    losses = stage_losses(criterion, logits, update.class_logits, assignment, targets)
    expected = golden.group('out/loss/')
    assert_close({key: loss.reshape(expected[key].shape) for key, loss in losses.items()}, expected, 1e-4)
    sum(loss for key, loss in losses.items() if 'loss' in key).backward()
    assert_close({key: value.grad for key, value in inputs.items()}, golden.group('out/grad_in/'), 1e-4)
    assert_gradients_close(head, golden, 1e-4)


def random_stage(kernels=6, things=3, stuff=2, objects=(2, 0, 4), size=(8, 10), seed=0):
    """Logits of a stage with ``kernels`` instance kernels, targets of three images, and their assignment."""
    torch.manual_seed(seed)
    batch, total = len(objects), sum(objects)
    images = torch.arange(batch).repeat_interleave(torch.tensor(objects))
    stuff_images = torch.tensor([0, 0, 2])[:3 if stuff else 0]
    stuff_labels = torch.tensor([things, things + 1, things + 1])[:len(stuff_images)]
    masks = (torch.rand(total + len(stuff_images), *size) > 0.6).float()
    targets = SegmentTargets(masks, torch.cat([torch.randint(things, (total, )), stuff_labels]),
                             torch.cat([images, stuff_images]), list(objects), None)
    within = torch.cat([torch.arange(count) for count in objects]).long()
    assignment = Assignment(images, within, torch.arange(total))
    mask_logits = torch.randn(batch, kernels + stuff, *size, requires_grad=True)
    class_logits = torch.randn(batch, kernels + stuff, things + stuff, requires_grad=True)
    return mask_logits, class_logits, assignment, assignment + assign_stuff_kernels(targets, things, kernels), targets


def test_dense_transcription():
    """The same losses with a dense N x h x w target per image, as in the equations."""
    mask_logits, class_logits, _, assignment, targets = random_stage()
    criterion = KNetCriterion(3, 2, loss_rank=RANK)
    losses = stage_losses(criterion, mask_logits, class_logits, assignment, targets)

    dense = torch.zeros_like(mask_logits).detach()
    positive = torch.zeros(mask_logits.shape[:2], dtype=torch.bool)
    onehot = torch.zeros_like(class_logits).detach()
    for image, kernel, segment in zip(*assignment, strict=True):
        dense[image, kernel] = targets.masks[segment]
        positive[image, kernel] = True
        onehot[image, kernel, targets.labels[segment]] = 1
    p, t = mask_logits.sigmoid()[positive], dense[positive]
    torch.testing.assert_close(losses['loss_mask'], F.binary_cross_entropy(p, t))
    dice = 1 - 2 * (p * t).sum((1, 2)) / (p.square().sum((1, 2)) + t.square().sum((1, 2)) + 2e-3)
    torch.testing.assert_close(losses['loss_dice'], 4 * dice.mean())
    rank = torch.full((3, 8, 10), -100)
    for kernel in range(8):
        rank[dense[:, kernel] > 0] = kernel
    pixelwise = F.cross_entropy(mask_logits, rank, reduction='none', ignore_index=-100)
    torch.testing.assert_close(losses['loss_rank'], 0.1 * pixelwise.mean())
    weight = torch.zeros(8, 5)
    weight[:6, :3] = 1
    weight[6, 3] = weight[7, 4] = 1
    q = class_logits.sigmoid()
    focal = -0.25 * onehot * (1 - q)**2 * q.log() - 0.75 * (1 - onehot) * q**2 * (1 - q).log()
    torch.testing.assert_close(losses['loss_cls'], 2 * (weight * focal).sum() / positive.sum())


@pytest.mark.parametrize('stuff', [0, 2])
def test_same_keys_and_gradients_everywhere_whatever_the_images_show(stuff):
    rank = dict(loss_rank=RANK)
    reference = None
    for objects in ((0, 0, 0), (2, 0, 4)):
        mask_logits, class_logits, things, assignment, targets = random_stage(stuff=stuff, objects=objects)
        criterion = KNetCriterion(3, stuff, **rank)
        losses = stage_losses(criterion, mask_logits, class_logits, assignment, targets)
        losses['loss_seg'] = criterion.semantic_loss(torch.randn(3, 3 + stuff, 8, 10, requires_grad=True), things,
                                                     targets)
        sum(value for key, value in losses.items() if 'loss' in key).backward()
        assert all(value.isfinite().all() for value in losses.values())
        assert mask_logits.grad is not None and class_logits.grad.any()
        reference = reference or losses.keys()
        assert losses.keys() == reference


def test_more_than_255_kernels_take_part_in_the_rank_loss():
    """255 marks void in a semantic map; as a kernel's index it is one like any other."""
    mask_logits = torch.zeros(1, 257, 2, 2, requires_grad=True)
    targets = SegmentTargets(torch.ones(1, 2, 2), torch.tensor([0]), torch.tensor([0]), [1], None)
    assignment = Assignment(torch.tensor([0]), torch.tensor([255]), torch.tensor([0]))
    mask_losses(KNetCriterion(1, 0, loss_rank=RANK), mask_logits, assignment, targets)['loss_rank'].backward()
    assert (mask_logits.grad[0, 255] < 0).all() and (mask_logits.grad[0, 256] > 0).all()


def test_void_is_left_out_of_the_semantic_loss():
    _, _, things, _, targets = random_stage()
    void = torch.zeros(3, 8, 10)
    void[1] = 1
    targets = targets._replace(unlabelled=void)
    logits = torch.randn(3, 5, 8, 10, requires_grad=True)
    KNetCriterion(3, 2).semantic_loss(logits, things, targets).backward()
    assert not logits.grad[1].any() and logits.grad[0].any()  # image 1 has no segment at all
    logits.grad = None
    KNetCriterion(3, 2, ignore_void=False).semantic_loss(logits, things, targets).backward()
    assert logits.grad[1].all()


@pytest.mark.parametrize('size', [(4, 5), (8, 10), (3, 4), (1, 1)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_semantic_loss_of_logits_of_any_size(size, dtype):
    """They are resized to the targets (8 x 10) and compared in float32."""
    _, _, assignment, _, targets = random_stage()
    logits = torch.randn(3, 5, *size).to(dtype)
    criterion = KNetCriterion(3, 2)
    loss = criterion.semantic_loss(logits, assignment, targets)
    resized = F.interpolate(logits.float(), (8, 10), mode='bilinear')
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, criterion.semantic_loss(resized, assignment, targets))


def test_points_estimate_the_loss_of_all_pixels(monkeypatch):
    """With logits of equal uncertainty, points are uniform: the mean of many of them is the mean of the pixels."""
    masks = torch.zeros(2, 120, 160)
    masks[0, :60], masks[1, :, :40] = 1, 1
    targets = SegmentTargets(masks, torch.tensor([0, 1]), torch.zeros(2).long(), [2], None)
    assignment = Assignment(torch.zeros(2).long(), torch.tensor([0, 1]), torch.tensor([0, 1]))
    logits = torch.full((1, 3, 60, 80), 2., requires_grad=True)
    dense = mask_losses(KNetCriterion(3), logits, assignment, targets)
    torch.manual_seed(0)
    criterion = KNetCriterion(3, train_cfg=dict(num_points=20000))
    sampled = mask_losses(criterion, logits, assignment, targets)
    assert sampled.keys() == dense.keys()
    for name, value in dense.items():
        assert float(sampled[name]) == pytest.approx(float(value), rel=0.03), name
    gradient, = torch.autograd.grad(sum(sampled.values()), logits)
    assert gradient[0, :2].abs().sum() > 0 and not gradient[0, 2].any()
    # The backward pass recomputes the losses at the points of the forward pass.
    monkeypatch.setattr(criterion_module, 'checkpointed', lambda function, *args: function(*args))
    torch.manual_seed(0)
    kept, = torch.autograd.grad(sum(mask_losses(criterion, logits, assignment, targets).values()), logits)
    assert torch.equal(gradient, kept)


def match_objects(points, mask_logits, targets):
    """Kernel of each object, -1 where there is none."""
    pairs = KNetCriterion(3, train_cfg=dict(num_match_points=points)).match(mask_logits, None, targets)
    kernels = torch.full_like(targets.labels, -1)
    kernels[pairs.segments] = pairs.kernels
    assert torch.equal(pairs.images, targets.images[pairs.segments])
    return kernels.tolist()


def stripes(objects, size=(40, 60)):
    """Disjoint masks of the objects of each image."""
    count = max(objects)
    masks = torch.zeros(count, *size)
    for i, columns in enumerate(torch.arange(size[1]).chunk(count)):
        masks[i, :, columns] = 1
    images = torch.arange(len(objects)).repeat_interleave(torch.tensor(objects))
    masks = torch.cat([masks[:number] for number in objects])
    return SegmentTargets(masks, torch.zeros(len(masks)).long(), images, list(objects), None)


@pytest.mark.parametrize('size', [(40, 60), (20, 30), (13, 70)])
def test_matching_at_points_finds_perfect_masks(size):
    targets = stripes((4, 0, 3))
    order = torch.tensor([5, 0, 3, 2, 4, 1])  # object i of an image has the mask of kernel order[i]
    mask_logits = torch.full((3, 6, *size), -8.)
    resized = resize(targets.masks[:, None], size)[:, 0]
    within = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    mask_logits[targets.images, order[within]] = 16 * resized - 8
    assert match_objects(200, mask_logits, targets) == order[within].tolist()


@pytest.mark.parametrize('points', [None, 50])
def test_matching_enlarges_no_prediction_to_the_size_of_the_targets_if_it_samples_points(points, monkeypatch):
    sizes = []
    monkeypatch.setattr(matcher, 'resize', lambda maps, size: sizes.append(tuple(size)) or resize(maps, size))
    match_objects(points, torch.randn(2, 6, 20, 30), stripes((4, 3)))
    assert sizes == ([] if points else [(40, 60)] * 2)


def test_matching_at_points_without_objects():
    assert match_objects(50, torch.randn(2, 6, 20, 30), stripes((3, 0))._replace(
        masks=torch.zeros(0, 40, 60), labels=torch.zeros(0).long(), images=torch.zeros(0).long(),
        num_objects=[0, 0])) == []


def test_matching_at_points_in_half_precision_is_that_in_float32():
    targets = stripes((4, 3))
    mask_logits = torch.randn(2, 6, 20, 30).half()
    torch.manual_seed(1)
    half = match_objects(50, mask_logits, targets)
    torch.manual_seed(1)
    assert match_objects(50, mask_logits.float(), targets) == half


def test_matching_draws_no_points_by_default(monkeypatch):
    monkeypatch.setattr(matcher, 'point_sample', None)
    state = torch.get_rng_state()
    match_objects(None, torch.zeros(2, 6, 20, 30), stripes((4, 3)))
    assert KNetCriterion(3).num_match_points is None and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize('train_cfg', [dict(num_point=5), dict(sampler=None)])
def test_unknown_training_settings_are_refused(train_cfg):
    with pytest.raises(ValueError, match=next(iter(train_cfg))):
        KNetCriterion(3, train_cfg=train_cfg)
