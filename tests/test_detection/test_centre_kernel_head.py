import pytest
import torch
from test_kernel_iter_head import config, feats, head, loss_of, samples

from knet_plugin.detection import CentreKernelHead
from knet_plugin.detection.centre_kernel_head import _lower_slopes, centre_target
from knet_plugin.detection.targets import SegmentTargets


def with_centres(**options):
    kernel_head = dict(config()['kernel_head'], type='knet_plugin.CentreKernelHead')
    return head(kernel_head=dict(kernel_head, **options))


def targets(masks, labels, images, num_objects):
    return SegmentTargets(masks, torch.tensor(labels), torch.tensor(images), num_objects, None)


def test_targets_are_gaussians_at_the_centroids():
    masks = torch.zeros(3, 32, 32)
    masks[0, 4:13, 10:19] = 1  # centre (8, 14), root of the area 9
    masks[1, 20:23, 20:23] = 1  # centre (21, 21), root of the area 3
    target = centre_target(targets(masks, [1, 1, 0], [0, 0, 1], [2, 1]), torch.Size([2, 2, 32, 32]))
    assert target[0, 1, 8, 14] == target[0, 1, 21, 21] == target.max() == 1
    assert target[0, 1, 8, 16].item() == pytest.approx(torch.exp(torch.tensor(-4 / (2 * 1.35 ** 2))).item())
    assert target[0, 1, 21, 22].item() == pytest.approx(torch.exp(torch.tensor(-1 / (2 * 0.45 ** 2))).item())
    assert not target[0, 0].any()
    assert not target[1].any()  # the third object has no pixels


def test_targets_follow_the_size_of_the_map():
    masks = torch.zeros(1, 64, 64)
    masks[0, 16:32, 32:48] = 1
    target = centre_target(targets(masks, [0], [0], [1]), torch.Size([1, 1, 16, 16]))
    assert target.sum() > 1 and target[0, 0, 5:7, 9:11].max() == 1


@pytest.mark.parametrize('objects', [(2, 0, 9), (0, 0, 0)])
@pytest.mark.parametrize('stuff', [0, 2])
def test_every_parameter_takes_part_and_keys_never_change(objects, stuff):
    built = with_centres()
    losses = built.loss(feats(), samples(objects))
    assert {name for name in losses if name.startswith('s0.')} == {
        's0.loss_mask', 's0.loss_dice', 's0.loss_rank', 's0.loss_seg', 's0.loss_centre'}
    assert all(value.isfinite().all() for value in losses.values())
    loss_of(losses).backward()
    assert all(parameter.grad is not None for parameter in built.parameters())
    assert built.kernel_head.conv_centre.weight.grad.any()


def test_local_maxima_come_first_and_their_neighbours_are_no_duplicates():
    logits = torch.zeros(1, 2, 8, 12)
    logits[0, 1, 2, 3], logits[0, 1, 2, 4], logits[0, 0, 6, 6], logits[0, 0, 2, 4] = 9, 8, 7, 6
    lowered = _lower_slopes(logits)
    assert (lowered[0, 1, 2, 3], lowered[0, 1, 2, 4], lowered[0, 0, 6, 6]) == (9, -2, 7)
    assert lowered[0, 0, 2, 4] == 6  # another class
    assert lowered[0, 1, 5, 5] == 0 and lowered[0, 1, 1, 3] == -10  # flat, and beside the centre


def test_first_masks_are_discs_around_the_pixels():
    """Before training, each kernel fires at its pixel, and less the farther a near pixel is from there."""
    built = CentreKernelHead(num_kernels=2, channels=64)
    built.init_weights()
    torch.nn.init.zeros_(built.conv_kernel.weight)
    pixels = torch.tensor([[5 * 40 + 7, 20 * 40 + 30]])
    logits = torch.zeros(1, 80, 32, 40).flatten(2).index_fill(2, pixels[0], 5.).unflatten(2, (32, 40))
    built.conv_centre.forward = lambda features: logits
    masks = built.instance_kernels(torch.zeros(1, 64, 32, 40), torch.zeros(1, 64, 32, 40)).mask_logits
    if masks.flatten(2).argmax(dim=2).tolist() != pixels.tolist():
        masks = masks.flip(1)  # equal centres may come in any order
    assert masks.flatten(2).argmax(dim=2).tolist() == pixels.tolist()
    assert (masks[0, 0, 5, 7:12].diff() < 0).all() and (masks[0, 1, 16:21, 30].diff() > 0).all()


def test_class_logits_start_as_those_of_the_centres():
    built = with_centres().eval()
    for stage in built.kernel_update_head:
        for value in (stage.classifier.fc_cls.weight, stage.classifier.fc_cls.bias):
            torch.nn.init.zeros_(value)
    proposals, updates = built.stages(feats())
    for update in updates:
        torch.testing.assert_close(update.class_logits[:, :-2, :-2], proposals.class_logits)
        assert not update.class_logits[:, -2:].any() and not update.class_logits[..., -2:].any()
    found = proposals.centre_logits.amax(dim=(1, 2, 3))
    torch.testing.assert_close(proposals.class_logits.amax(dim=(1, 2)), found)  # the highest pixel is among them


def test_a_batch_of_one_gives_the_same():
    built = with_centres().eval()
    whole = built.kernel_head(feats())
    single = built.kernel_head([level[1:2] for level in feats()])
    for name in ('kernels', 'mask_logits', 'class_logits', 'centre_logits'):
        torch.testing.assert_close(getattr(single, name), getattr(whole, name)[1:2])


def test_parts_can_be_configured():
    plain = with_centres()
    changed = with_centres(loss_centre=dict(loss_weight=3.), positions=dict(temperature=50))
    assert (plain.kernel_head.positions.temperature, changed.kernel_head.positions.temperature) == (100, 50)
    logits, objects = torch.randn(1, 3, 8, 8), targets(torch.ones(1, 8, 8), [0], [0], [1])
    torch.testing.assert_close(changed.kernel_head.centre_loss(logits, objects),
                               3 * plain.kernel_head.centre_loss(logits, objects))


def test_maps_with_fewer_pixels_than_kernels():
    built = with_centres(num_kernels=200)
    tiny = [torch.randn(1, 8, 8 // 2**i, 8 // 2**i) for i in range(4)]
    proposals, updates = built.stages(tiny)
    assert proposals.mask_logits.shape == updates[-1].mask_logits.shape == (1, 4 * 4 + 2, 4, 4)


def test_kernels_are_one_by_one():
    with pytest.raises(ValueError, match='kernel_size=3'):
        CentreKernelHead(kernel_size=3)
