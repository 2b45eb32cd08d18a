"""What the package computes in fewer steps equals the equations as they are written down, which the benchmark keeps."""

import plain_knet
import pytest
import torch
from detection_cases import sample
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mmdet.evaluation.functional import INSTANCE_OFFSET
from mmdet.models.seg_heads.panoptic_fusion_heads import MaskFormerFusionHead

from knet_plugin.core import KernelUpdateHead
from knet_plugin.detection import KernelHead, KernelIterHead, KNetFusionHead
from knet_plugin.detection.resized_masks import Sizes, assign_pixels, binarize
from knet_plugin.detection.targets import segment_targets

THINGS, STUFF, KERNELS = 3, 2, 4
NORM = dict(type='GN', num_groups=2)


def assert_same(left, right, scale=1e-11):
    for one, other in zip(left, right, strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, rtol=scale, atol=scale * max(float(other.abs().max()), 1) if other.numel()
                              else 0)


@given(batch=st.integers(1, 3), number=st.integers(1, 9), height=st.integers(1, 9), width=st.integers(1, 9),
       size=st.sampled_from([1, 3]), semantic=st.booleans(), seed=st.integers(0, 10**6))
@settings(max_examples=120, deadline=None)
def test_update_stage(batch, number, height, width, size, semantic, seed):
    torch.manual_seed(seed)
    stage = KernelUpdateHead(
        8, size, dict(type='knet_plugin.SoftmaxMask' if semantic else 'knet_plugin.HardMask'),
        interaction=dict(type='knet_plugin.KernelInteraction', num_heads=2, feedforward_channels=16),
        classifier=None if semantic else dict(type='knet_plugin.KernelClassifier', num_classes=5)).double()
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in (
        (batch, 8, height, width), (batch, number, 8, size, size), (batch, number, height, width))]
    ours, plain = ([value for value in update if value is not None]
                   for update in (stage(*inputs), plain_knet.update_stage(stage, *inputs)))
    assert_same(ours, plain)
    wanted = [*inputs[:2], *([inputs[2]] if semantic else []), *stage.parameters()]
    gradients = [torch.autograd.grad(sum((value * value).sum() for value in values), wanted) for values in (
        ours, plain)]
    assert_same(*gradients, scale=1e-9)


def kernel_head(norm_cfg=NORM, size=1, number=KERNELS):
    return KernelHead(THINGS, STUFF, number, 8, size, norm_cfg=norm_cfg, init_cfg=None).double()


@given(batch=st.integers(1, 3), height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 10**6),
       size=st.sampled_from([1, 3]), number=st.integers(1, 4), grad=st.booleans())
@settings(max_examples=80, deadline=None)
def test_kernel_head(batch, height, width, seed, size, number, grad):
    torch.manual_seed(seed)
    head = kernel_head(size=size, number=number)
    feats = []
    for _ in range(4):
        feats.append(torch.randn(batch, 8, height, width, dtype=torch.float64))
        height, width = -(-height // 2), -(-width // 2)
    with torch.set_grad_enabled(grad):
        ours, plain = head(feats)[:4], plain_knet.kernel_head(head, feats)[:4]
    assert_same(ours, plain, scale=1e-9)
    if grad:
        weights = [parameter for parameter in head.parameters() if parameter.requires_grad]
        gradients = [torch.autograd.grad(sum((value * value).sum() for value in values), weights) for values in (
            ours, plain)]
        assert_same(*gradients, scale=1e-7)


def iter_head(**options):
    torch.manual_seed(0)
    return KernelIterHead(
        THINGS, STUFF, 2, dict(num_kernels=KERNELS, channels=8, norm_cfg=NORM),
        dict(interaction=dict(num_heads=2, feedforward_channels=16)),
        dict(ignore_void=False,
             loss_rank=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False, loss_weight=0.1)), **options)


@pytest.mark.parametrize('objects', [(2, 0), (1, 7), (0, 0)])
@pytest.mark.parametrize('with_cp', [False, True])
def test_losses_and_gradients(objects, with_cp):
    head = iter_head(with_cp=with_cp)
    generator = torch.Generator().manual_seed(3)
    samples = []
    for count in objects:
        semantic = torch.randint(THINGS, THINGS + STUFF, (64, 96), generator=generator)
        masks = (torch.rand(count, 64, 96, generator=generator) > 0.7).long()
        samples.append(sample(masks, torch.arange(count) % THINGS, (64, 96), semantic))
    feats = [torch.randn(2, 8, 16 // 2**i, 24 // 2**i, generator=generator) for i in range(4)]
    targets = segment_targets(samples, (16, 24), THINGS, STUFF)

    proposals = plain_knet.kernel_head(head.kernel_head, feats)
    features, kernels, masks = proposals[:3]
    updates = []
    for stage in head.kernel_update_head:
        updates.append(plain_knet.update_stage(stage, features, kernels, masks))
        kernels, masks, _ = updates[-1]
    plain = plain_knet.dense_losses(head, proposals, updates, targets)
    ours = head.loss(feats, samples)
    assert ours.keys() == plain.keys()
    for name, value in plain.items():
        assert float(ours[name]) == pytest.approx(float(value), rel=1e-5, abs=1e-7), name
    weights = list(head.parameters())
    gradients = [torch.autograd.grad(sum(value for name, value in losses.items() if 'loss' in name), weights,
                                     allow_unused=True) for losses in (ours, plain)]
    for (name, _), left, right in zip(head.named_parameters(), *gradients, strict=True):
        left, right = (torch.zeros(1) if value is None else value for value in (left, right))
        assert float((left - right).abs().max()) <= 1e-4 * float(right.abs().max()) + 1e-6, name


def test_with_cp_refuses_batch_norm():
    with pytest.raises(ValueError, match='with_cp=True .* norm_cfg'):
        KernelIterHead(THINGS, STUFF, 1, dict(num_kernels=KERNELS, channels=8, norm_cfg=dict(type='BN')), with_cp=True)


def test_batch_norm_in_the_fpn_counts_a_batch_once():
    head = kernel_head(dict(type='BN')).train()
    feats = [torch.randn(2, 8, 16 // 2**i, 24 // 2**i, dtype=torch.float64) for i in range(4)]
    sum(value.sum() for value in head(feats)[:4]).backward()
    counts = [buffer for name, buffer in head.named_buffers() if name.endswith('num_batches_tracked')]
    assert counts and all(count == 1 for count in counts)


@st.composite
def predictions(draw):
    """Mask logits (N, h, w) and sizes that need not fit one another; how many of the masks are stuff."""
    things, stuff = draw(st.integers(1, 24)), draw(st.integers(0, 4))
    dtype, roughness = draw(st.sampled_from([torch.float32, torch.float64])), draw(st.integers(1, 12))
    torch.manual_seed(draw(st.integers(0, 10**6)))
    coarse = torch.randn(1, things + stuff, roughness, roughness, dtype=dtype) * 5
    logits = torch.nn.functional.interpolate(coarse, (draw(st.integers(5, 15)), draw(st.integers(5, 15))),
                                             mode='bilinear')[0]
    padded = draw(st.integers(20, 70)), draw(st.integers(20, 70))
    image = tuple(draw(st.integers(side // 2, side)) for side in padded)
    return logits, (padded, image, (draw(st.integers(1, 45)), draw(st.integers(1, 45)))), stuff


def assume_clear(masks, scores=None):
    """Nothing differs by rounding alone: no probability from the threshold, no product from the next one."""
    margin = 1e-5 if masks.dtype == torch.float32 else 1e-11
    assume(bool(((masks - 0.5).abs() > margin).all()))
    if scores is not None and len(masks) > 1:
        first, second = (scores[:, None, None] * masks).topk(2, dim=0).values
        assume(bool((first - second > margin * first).all()))


def result_of(fusion, class_logits, logits, sizes):
    meta = dict(batch_input_shape=sizes[0], img_shape=sizes[1], ori_shape=sizes[2])
    dummy = sample(torch.zeros(0, 1, 1), torch.zeros(0).long(), sizes[0], **meta)
    return fusion.predict(class_logits[None], logits[None], [dummy])[0]


@given(predictions())
@settings(max_examples=60, deadline=None)
def test_post_processing(case):
    logits, sizes, stuff = case
    logits, things = logits.float(), len(logits) - stuff  # which the head itself computes in
    class_logits = torch.randn(len(logits), THINGS + stuff)
    fusion = KNetFusionHead(THINGS, stuff, dict(max_per_img=7))
    scores, full = class_logits.sigmoid(), plain_knet.full_masks(logits, *sizes)
    kernel_scores, kernel_labels = fusion.candidates(scores)
    assume_clear(full, kernel_scores)
    result = result_of(fusion, class_logits, logits, sizes)
    best, labels, masks = plain_knet.instances(scores[:things, :THINGS], logits[:things], sizes,
                                               min(7, things * THINGS))
    instances = result['ins_results']
    assert torch.equal(instances.scores, best) and torch.equal(instances.labels, labels)
    assert torch.equal(instances.masks, masks)
    panoptic = plain_knet.panoptic(kernel_scores, kernel_labels, full, THINGS, THINGS + stuff)
    assert torch.equal(result['pan_results'].sem_seg[0], panoptic)


@given(predictions())
@settings(max_examples=60, deadline=None)
def test_resized_masks(case):
    logits, sizes, _ = case
    logits = logits.float()
    full = plain_knet.full_masks(logits, *sizes)
    scores = torch.rand(len(logits), dtype=logits.dtype)
    assume_clear(full, scores)
    owner, areas = assign_pixels(logits.sigmoid(), scores, Sizes(*sizes))
    found = binarize(logits.sigmoid(), 0.5, Sizes(*sizes))
    assert torch.equal(found, full > 0.5)
    assert torch.equal(owner, (scores[:, None, None] * full).argmax(dim=0))
    assert torch.equal(areas, (full >= 0.5).flatten(1).sum(dim=1))


@given(predictions())
@settings(max_examples=60, deadline=None)
def test_panoptic_map_is_that_of_mmdet(case):
    """Where both are asked for the same: each kernel has one class, whose score is the same by sigmoid and by softmax
    over the classes and a background, none is below a threshold (mmdet's then gives up its pixels, ours makes them
    void), and mmdet's gets the masks at full size (it would resize logits). Segments are numbered otherwise.
    """
    logits, sizes, stuff = case
    logits, things = logits.float(), len(logits) - stuff
    scores = torch.rand(len(logits)) * 0.4 + 0.55
    labels = torch.cat([torch.randint(THINGS, (things, )), torch.arange(THINGS, THINGS + stuff)])
    full = plain_knet.full_masks(logits, *sizes)
    assume_clear(full, scores)
    kernels = torch.arange(len(logits))
    class_logits = torch.full((len(logits), THINGS + stuff), -30.)
    class_logits[kernels, labels] = scores.logit()
    ours = result_of(KNetFusionHead(THINGS, stuff), class_logits, logits, sizes)['pan_results'].sem_seg[0]
    background = torch.full((len(logits), THINGS + stuff + 1), -30.)
    background[kernels, labels], background[:, -1] = scores.log(), (1 - scores).log()
    theirs = MaskFormerFusionHead(THINGS, stuff, dict(object_mask_thr=0., iou_thr=0.6)).panoptic_postprocess(
        background, full.double().logit())
    theirs = theirs.sem_seg[0].long()
    assert torch.equal(ours % INSTANCE_OFFSET, theirs % INSTANCE_OFFSET)
    pairs = torch.stack([ours.flatten(), theirs.flatten()]).unique(dim=1)
    assert pairs.shape[1] == len(ours.unique()) == len(theirs.unique())  # the same segments
