import pytest
import torch
from test_kernel_iter_head import STUFF, THINGS, config, feats, head, loss_of, samples

from knet_plugin.core.feature_map import group_features, resize
from knet_plugin.detection import MaskPilots
from knet_plugin.detection import criterion as criterion_module
from knet_plugin.detection.targets import segment_targets

CENTRES = dict(kernel_head=dict(config()['kernel_head'], type='knet_plugin.CentreKernelHead'))
NO_NOISE = dict(mask_noise=0., label_noise=0.)
PILOT_LOSSES = {f's{i}.loss_pilot_{name}' for i in (1, 2) for name in ('mask', 'dice', 'cls')}


def piloted_head(pilots=None, **options):
    """A head with pilots, and the weights that it has without."""
    built = head(train_cfg=dict(pilots=pilots or {}), **options)
    built.load_state_dict(head(**options).state_dict(), strict=False)
    return built


def targets_of(batch, size=(16, 24)):
    return segment_targets(batch, size, THINGS, STUFF)


def add_pilots(built, batch, levels=None):
    """Proposals without pilots, and what the pilots make of them."""
    proposals = built.propose(feats(len(batch)) if levels is None else levels)
    return proposals, built.pilots(proposals, targets_of(batch), built.kernel_head.add_group_features)


def gradients(built, losses):
    built.zero_grad()
    loss_of(losses).backward()
    return {name: value.grad for name, value in built.named_parameters() if 'pilots' not in name}


@pytest.mark.parametrize('num_groups', [1, 3])
@pytest.mark.parametrize('options', [dict(), CENTRES])
def test_losses_and_gradients_of_the_ordinary_kernels_are_those_without_pilots(options, num_groups):
    plain = head(**options).double()
    built = piloted_head(dict(num_groups=num_groups), **options).double()
    levels = [level.double() for level in feats()]
    expected, losses = plain.loss(levels, samples()), built.loss(levels, samples())
    assert losses.keys() - expected.keys() == PILOT_LOSSES
    ordinary = {name: losses[name] for name in expected}
    torch.testing.assert_close(ordinary, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(gradients(built, ordinary), gradients(plain, expected), rtol=1e-7, atol=1e-10)


def test_other_pilots_leave_not_a_bit_of_the_ordinary_kernels_changed():
    built, levels, batch = piloted_head(dict(num_groups=2)), feats(), samples()
    first, second = built.loss(levels, batch), built.loss(levels, batch)
    for name, value in first.items():
        assert torch.equal(second[name], value) != (name in PILOT_LOSSES), name
    left, right = (gradients(built, {name: value for name, value in losses.items() if name not in PILOT_LOSSES})
                   for losses in (first, second))
    assert all(torch.equal(right[name], value) for name, value in left.items())


def test_groups_do_not_see_each_other():
    built = piloted_head(dict(num_groups=2)).double()
    batch = samples((2, 0, 3))
    _, piloted = add_pilots(built, batch, [level.double() for level in feats()])
    before = built.refine(piloted.proposals, hidden=piloted.hidden)[-1]
    kernels = piloted.proposals.kernels.clone()
    kernels[:, -3:] += 1  # the second group
    after = built.refine(piloted.proposals._replace(kernels=kernels), hidden=piloted.hidden)[-1]
    for name in ('kernels', 'mask_logits', 'class_logits'):
        assert torch.equal(getattr(after, name)[:, :-3], getattr(before, name)[:, :-3])
    assert not torch.allclose(after.kernels[0, -3:], before.kernels[0, -3:])


@pytest.mark.parametrize('num_groups', [1, 2])
def test_without_noise_the_first_masks_are_the_objects(num_groups):
    built, batch = piloted_head(dict(NO_NOISE, num_groups=num_groups)), samples((2, 0, 5))
    proposals, piloted = add_pilots(built, batch)
    targets, ordinary = targets_of(batch), proposals.mask_logits.shape[1]
    images, kernels, segments = piloted.assignment
    assert piloted.proposals.mask_logits.shape[1] == ordinary + 5 * num_groups
    assert segments.tolist() == [*range(7)] * num_groups and torch.equal(images, targets.images[segments])
    assert kernels.min() == ordinary and len(torch.stack([images, kernels]).unique(dim=1).T) == 7 * num_groups
    masks = resize(targets.masks[:, None], (8, 12))[:, 0]
    probabilities = piloted.proposals.mask_logits.sigmoid()
    torch.testing.assert_close(probabilities[images, kernels], masks[segments].clamp(0.02, 0.98))
    paddings = probabilities[:, ordinary:].sum() - probabilities[images, kernels].sum()
    empty = 3 * 5 * num_groups - 7 * num_groups
    torch.testing.assert_close(paddings, torch.tensor(0.02 * 8 * 12 * empty), rtol=1e-4, atol=0)


@pytest.mark.parametrize('kernel_size', [1, 3])
def test_first_kernels_are_class_embeddings_and_group_features(kernel_size):
    kernel_head = dict(config()['kernel_head'], kernel_size=kernel_size)
    built, batch = piloted_head(NO_NOISE, kernel_head=kernel_head), samples((2, 1))
    proposals, piloted = add_pilots(built, batch)
    images, kernels, segments = piloted.assignment
    weights = (piloted.proposals.mask_logits > 0).float()
    group = group_features(weights, proposals.features)[images, kernels]
    expected = group[..., None, None].expand(-1, -1, kernel_size, kernel_size).clone()
    middle = kernel_size // 2
    expected[..., middle, middle] += built.pilots.label_embedding.weight[targets_of(batch).labels[segments]]
    torch.testing.assert_close(piloted.proposals.kernels[images, kernels], expected)
    loss_of(built.loss(feats(2), batch)).backward()
    assert built.pilots.label_embedding.weight.grad.any()


def test_noise_flips_a_share_of_each_area_and_replaces_a_share_of_the_labels():
    batch = samples((1, 1))
    targets = targets_of(batch, (400, 400))
    masks = torch.zeros(len(targets.labels), 400, 400)
    masks[0, :200], masks[1, :50, :80] = 1, 1
    targets = targets._replace(masks=masks, labels=torch.zeros_like(targets.labels))
    noised = MaskPilots(5, 8, num_groups=20, mask_noise=0.3)._noised_masks(targets, torch.Size([400, 400]))
    noised = noised.view(20, 2, 400, 400)
    flipped = (noised != masks[:2]).float().sum((-2, -1)).mean(dim=0)
    assert flipped.tolist() == pytest.approx([0.3 * 80000, 0.3 * 4000], rel=0.05)
    assert not torch.equal(noised[0], noised[1])
    pilots = MaskPilots(5, 8, num_groups=1000, label_noise=0.5)
    assert pilots._noised_labels(targets).bincount(minlength=5).tolist() == pytest.approx([1200] + [200] * 4, abs=80)


def test_a_batch_of_one_gives_the_same_as_a_batch_of_many():
    """Images with other numbers of objects only add padding."""
    built, batch = piloted_head(dict(NO_NOISE, num_groups=2)).double(), samples((2, 0, 5))
    levels = [level.double() for level in feats()]
    _, piloted = add_pilots(built, batch, levels)
    together = built.refine(piloted.proposals, hidden=piloted.hidden)[-1]
    for image in range(3):
        _, alone = add_pilots(built, batch[image:image + 1], [level[image:image + 1] for level in levels])
        update = built.refine(alone.proposals, hidden=alone.hidden)[-1]
        ours = piloted.assignment.images == image
        for name in ('kernels', 'mask_logits', 'class_logits'):
            there, here = getattr(together, name)[image], getattr(update, name)[0]
            torch.testing.assert_close(there[piloted.assignment.kernels[ours]], here[alone.assignment.kernels])


def test_each_pilot_is_supervised_by_its_own_object():
    built, batch = piloted_head(dict(num_groups=2)), samples((2, 0, 3))
    proposals, piloted = add_pilots(built, batch)
    updates = built.refine(piloted.proposals, hidden=piloted.hidden)
    targets, criterion, number = targets_of(batch), built.criterion, torch.tensor(10.)
    images, kernels, segments = piloted.assignment
    losses = criterion.pilot_losses(updates[0], piloted.assignment, targets, number)
    logits = resize(updates[0].mask_logits, (16, 24))[images, kernels]
    torch.testing.assert_close(losses['loss_pilot_mask'], criterion.loss_mask(logits, targets.masks[segments]))
    torch.testing.assert_close(losses['loss_pilot_dice'], criterion.loss_dice(logits, targets.masks[segments]))
    classes = updates[0].class_logits[images, kernels, :THINGS]
    expected = criterion.loss_cls(classes, targets.labels[segments], avg_factor=10.)
    torch.testing.assert_close(losses['loss_pilot_cls'], expected)


def test_pilots_are_counted_over_all_processes_in_the_one_exchange_of_the_stages(monkeypatch):
    built = piloted_head(NO_NOISE)
    alone = built.loss(feats(), samples())
    exchanges = []

    def mean_with_a_process_of_three_times_the_objects(counts):
        exchanges.append(len(counts))
        return 2 * counts.float()

    monkeypatch.setattr(criterion_module, 'mean_over_processes', mean_with_a_process_of_three_times_the_objects)
    losses = built.loss(feats(), samples())
    assert exchanges == [4, 1]  # kernel head, two stages and pilots; pixels of the semantic loss
    for name in PILOT_LOSSES:
        torch.testing.assert_close(losses[name], alone[name] / 2)


@pytest.mark.parametrize('stuff', [0, STUFF])
@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize('objects', [(2, 0, 9), (0, 0, 0)])
@pytest.mark.parametrize('options', [dict(), dict(num_points=20, num_match_points=30)])
def test_keys_and_gradients_do_not_depend_on_the_images(objects, with_cp, stuff, options):
    train_cfg = dict(options, pilots=dict(num_groups=2))
    built = head(train_cfg=train_cfg, with_cp=with_cp, num_stuff_classes=stuff)
    losses = built.loss(feats(), samples(objects))
    assert set(losses) - set(head(num_stuff_classes=stuff).loss(feats(), samples(objects))) == PILOT_LOSSES
    for name in PILOT_LOSSES:
        assert losses[name].isfinite() and (losses[name] > 0) == any(objects)
    loss_of(losses).backward()
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert built.pilots.label_embedding.weight.grad.any() == any(objects)


def test_checkpointing_the_kernel_head_changes_nothing():
    plain, checkpointing = piloted_head(NO_NOISE), piloted_head(NO_NOISE, with_cp=True)
    checkpointing.load_state_dict(plain.state_dict())
    expected, losses = (built.loss(feats(), samples()) for built in (plain, checkpointing))
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(gradients(checkpointing, losses), gradients(plain, expected))


def test_weights_of_the_stages_scale_the_losses_of_pilots():
    plain = piloted_head(NO_NOISE)
    weighted = piloted_head(NO_NOISE, criterion=dict(config()['criterion'], stage_loss_weights=[1, 3]))
    weighted.load_state_dict(plain.state_dict())
    expected, losses = (built.loss(feats(), samples()) for built in (plain, weighted))
    for name in PILOT_LOSSES:
        torch.testing.assert_close(losses[name], (3 if name.startswith('s2') else 1) * expected[name])


def test_prediction_and_weights_are_those_without_pilots():
    plain, built = head(), piloted_head()
    assert built.state_dict().keys() - plain.state_dict().keys() == {'pilots.label_embedding.weight'}
    assert not any('pilots' in key for key in plain.state_dict())
    for expected, result in zip(plain.predict(feats(), []), built.predict(feats(), []), strict=True):
        assert torch.equal(result, expected)
    for expected, result in zip(plain(feats()), built(feats()), strict=True):
        assert all(torch.equal(*pair) for pair in zip(result, expected, strict=True))


@pytest.mark.parametrize('parts', [dict(updater=None), dict(interaction=None), dict(mask_branch=dict(residual=True))])
def test_pilots_of_other_stages(parts):
    update_head = dict(config()['kernel_update_head'], **parts)
    built = piloted_head(kernel_update_head=update_head)
    losses = built.loss(feats(), samples())
    loss_of(losses).backward()
    assert all(parameter.grad.isfinite().all() for parameter in built.parameters())


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_autocast(dtype):
    built = piloted_head(NO_NOISE)
    expected = built.loss(feats(), samples())
    with torch.autocast('cpu', dtype):
        losses = built.loss(feats(), samples())
    for name in PILOT_LOSSES:
        torch.testing.assert_close(losses[name].float(), expected[name], rtol=0.2, atol=0.05)


@pytest.mark.parametrize(('options', 'message'), [
    (dict(num_groups=0), 'num_groups=0'),
    (dict(mask_noise=1.5), 'mask_noise=1.5'),
    (dict(label_noise=-0.1), 'label_noise=-0.1'),
])
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        MaskPilots(3, 8, **options)


def test_options_that_do_not_fit_the_head():
    with pytest.raises(ValueError, match='SoftmaxMask'):
        piloted_head(kernel_update_head=dict(mask_activation=dict(type='knet_plugin.SoftmaxMask')))
    with pytest.raises(ValueError, match='pilots has channels=16'):
        piloted_head(dict(channels=16))
    given = dict(pilots=dict(num_groups=2))
    head(train_cfg=given)
    assert given == dict(pilots=dict(num_groups=2))
