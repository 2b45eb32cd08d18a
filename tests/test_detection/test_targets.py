import pytest
import torch
import torch.nn.functional as F
from detection_cases import detector, golden_samples, sample
from golden import Golden

from knet_plugin.detection.targets import (
    IGNORE_INDEX,
    Assignment,
    SegmentTargets,
    assign_stuff_kernels,
    rank_target,
    segment_targets,
    semantic_target,
)

THINGS, STUFF = 3, 2


def batch(objects=(2, 0, 3), size=(40, 56), padded=(64, 64), seed=0):
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for i, count in enumerate(objects):
        masks = (torch.rand(count, *size, generator=generator) > 0.7).long()
        semantic = torch.randint(THINGS, THINGS + STUFF, size, generator=generator)
        semantic[:5] = 255
        labels = torch.randint(THINGS, (count, ), generator=generator)
        samples.append(sample(masks, labels, padded, semantic, img_path=f'{i}.jpg'))
    return samples


def plain(maps, padded, size, value=0):
    """As in the official description: pad, then bilinear interpolation."""
    maps = F.pad(maps.float(), (0, padded[1] - maps.shape[-1], 0, padded[0] - maps.shape[-2]), value=value)
    return F.interpolate(maps[:, None], size, mode='bilinear', align_corners=False)[:, 0]


@pytest.mark.parametrize('size', [(16, 16), (8, 8), (64, 64), (13, 17)])
def test_masks_are_padded_and_interpolated(size):
    """At a quarter of the size (where most pixels are not looked at) and at any other."""
    samples = batch()
    targets = segment_targets(samples, size, THINGS, STUFF)
    assert targets.num_objects == [2, 0, 3]
    for i, data in enumerate(samples):
        masks = torch.from_numpy(data.gt_instances.masks.masks)
        torch.testing.assert_close(targets.masks[targets.objects_of(i)], plain(masks, (64, 64), size))
        assert torch.equal(targets.labels[targets.objects_of(i)], data.gt_instances.labels)
        for label in (THINGS, THINGS + 1):
            row = (targets.images == i) & (targets.labels == label)
            expected = plain(data.gt_sem_seg.sem_seg == label, (64, 64), size)
            torch.testing.assert_close(targets.masks[row], expected)
        void = F.pad(data.gt_sem_seg.sem_seg, (0, 8, 0, 24), value=255) == 255
        torch.testing.assert_close(targets.unlabelled[i:i + 1], plain(void, (64, 64), size))


def test_absent_stuff_is_no_segment():
    samples = batch()
    samples[0].gt_sem_seg.sem_seg[:] = THINGS
    targets = segment_targets(samples, (16, 16), THINGS, STUFF)
    assignment = assign_stuff_kernels(targets, THINGS, num_kernels=10)
    pairs = list(zip(assignment.images.tolist(), assignment.kernels.tolist(), strict=True))
    assert pairs == [(0, 10), (1, 10), (1, 11), (2, 10), (2, 11)]
    assert (targets.labels[assignment.segments] == assignment.kernels - 10 + THINGS).all()


def test_vanishing_mask_stays_a_segment():
    data = sample(torch.zeros(1, 40, 56).long(), torch.tensor([1]), (64, 64))
    data.gt_instances.masks.masks[0, 4, 8] = 1  # no central pixel of its 4 x 4 block
    targets = segment_targets([data], (16, 16), THINGS, 0)
    assert targets.labels.tolist() == [1] and not targets.masks.any()


@pytest.mark.parametrize('size', [(16, 16), (15, 9)])
def test_masks_of_255_are_masks(size):
    samples = batch()
    expected = segment_targets(samples, size, THINGS, STUFF).masks
    for data in samples:
        data.gt_instances.masks.masks *= 255
    assert torch.equal(segment_targets(samples, size, THINGS, STUFF).masks, expected)


def two_segments(first, second):
    """Two soft masks on a line of four pixels, of one image."""
    masks = torch.tensor([[first], [second]], dtype=torch.float32)
    return SegmentTargets(masks, torch.tensor([0, 2]), torch.tensor([0, 0]), [2], None)


def test_last_kernel_wins_each_pixel_that_it_touches():
    targets = two_segments([1, .5, .25, 0], [0, .25, 1, 0])
    for kernels, expected in (([4, 7], [4, 7, 7, IGNORE_INDEX]), ([7, 4], [7, 7, 7, IGNORE_INDEX])):
        assignment = Assignment(torch.tensor([0, 0]), torch.tensor(kernels), torch.tensor([0, 1]))
        assert rank_target(assignment, targets).tolist() == [[expected]]
        expected_labels = [[[{4: [0, 2], 7: [2, 0]}[k][kernels[0] == 7] if k >= 0 else 5 for k in expected]]]
        assert semantic_target(assignment, targets, 5, True).tolist() == expected_labels


def test_objects_are_painted_over_stuff_and_void_is_ignored():
    targets = SegmentTargets(
        torch.tensor([[[0, .5, 0, 0]], [[1, 1, 0, 0]]]), torch.tensor([1, 4]), torch.tensor([0, 0]), [1],
        torch.tensor([[[0., 0, .25, 0]]]))
    assignment = Assignment(torch.tensor([0]), torch.tensor([3]), torch.tensor([0]))
    assert semantic_target(assignment, targets, 5, True).tolist() == [[[4, 1, IGNORE_INDEX, 5]]]
    assert semantic_target(assignment, targets, 5, False).tolist() == [[[4, 1, 5, 5]]]


def test_no_segment_at_all():
    samples = batch(objects=(0, 0))
    for data in samples:
        data.gt_sem_seg.sem_seg[:] = 255
    targets = segment_targets(samples, (16, 16), THINGS, STUFF)
    assignment = assign_stuff_kernels(targets, THINGS, 10)
    assert len(targets.masks) == 0 and len(assignment.kernels) == 0
    assert (rank_target(assignment, targets) == IGNORE_INDEX).all()
    assert (semantic_target(assignment, targets, 5, True) == IGNORE_INDEX).all()


def test_only_ignoring_void_departs_from_the_official_numbers():
    """Unlabelled pixels are background in the official semantic loss. Here they are left out by default."""
    golden = Golden('knet_panoptic_trained')
    model = detector(golden).train()
    official = model.loss(golden['in/img'], golden_samples(golden))
    model.panoptic_head.criterion.ignore_void = True
    ours = model.loss(golden['in/img'], golden_samples(golden))
    assert {key for key in ours if not torch.equal(ours[key], official[key])} == {'s0.loss_seg'}
    assert ours['s0.loss_seg'] < official['s0.loss_seg']


def broken(change):
    samples = batch()
    change(samples[2])
    return samples


def without_semantic_map(data):
    del data.gt_sem_seg


def without_masks(data):
    del data.gt_instances.masks


def with_label(value):
    def change(data):
        data.gt_instances.labels[1] = value
    return change


def with_semantic(value):
    def change(data):
        data.gt_sem_seg.sem_seg[0, 7, 9] = value
    return change


@pytest.mark.parametrize('change, message', [
    (without_semantic_map, r'gt_sem_seg is missing in 2\.jpg'),
    (without_masks, r'gt_instances\.masks is missing in 2\.jpg'),
    (with_label(THINGS), r'gt_instances\.labels must be 0 \.\. 2, got 3 in 2\.jpg'),
    (with_label(-1), r'gt_instances\.labels must be 0 \.\. 2, got -1 in 2\.jpg'),
    (with_semantic(5), r'gt_sem_seg must be 0 \.\. 4, got 5 in 2\.jpg'),
    (with_semantic(-3), r'gt_sem_seg must be 0 \.\. 4, got -3 in 2\.jpg'),
    (with_semantic(2**40), r'gt_sem_seg must be 0 \.\. 4, got 1099511627776 in 2\.jpg'),
])
def test_bad_ground_truth(change, message):
    with pytest.raises(ValueError, match=message):
        segment_targets(broken(change), (16, 16), THINGS, STUFF)
