import pytest
import torch
from detection_cases import check_panoptic, check_predictions, detector, golden_samples
from golden import Golden, assert_close, assert_gradients_close, build, cases, detector_config, loss_name

from knet_plugin.detection.targets import segment_targets

CASES = cases('knet_*')
# Sums that are rounded differently flip single pixels where two products of score and probability, or a probability and
# its threshold, differ by less than 1e-5; the cases count some 20 of these in an image.
TIES = 30


@pytest.mark.parametrize('name', CASES)
def test_golden_training(name, monkeypatch):
    golden = Golden(name)
    model = detector(golden).train()
    head = model.panoptic_head
    stages, matches, assigner = [], [], head.criterion.assigner
    plain_refine, plain_assign = head.refine, assigner.assign
    monkeypatch.setattr(head, 'refine', lambda proposals: stages.append(plain_refine(proposals)) or stages[-1])
    monkeypatch.setattr(assigner, 'assign', lambda *args: matches.append(plain_assign(*args)) or matches[-1])
    losses = model.loss(golden['in/img'], golden_samples(golden))

    expected = golden.group('out/loss/')
    assert_close({key: value.reshape(()) for key, value in losses.items()},
                 {loss_name(key): value.reshape(()) for key, value in expected.items()}, 1e-4)
    total = sum(value for key, value in losses.items() if 'loss' in key)
    assert_close({'total': total}, {'total': golden['out/total']}, 1e-4)
    names = [f'{stage}_{i}' for stage in ('rpn', 's1', 's2') for i in range(2)]  # s0's matching is the kernel head's
    for name_there, result in zip(names, matches, strict=True):
        assert torch.equal(result.gt_inds, golden[f'out/assign/{name_there}'])
        assert torch.equal(result.gt_inds, golden[f'out/assign/{name_there.replace("rpn", "s0")}'])
    updates, = stages
    assert_close({'out/train/s2_mask_preds': updates[2].mask_logits} |
                 {f'out/train/s{i}_cls_score': update.class_logits for i, update in enumerate(updates)},
                 {f'out/train/{key}': value for key, value in golden.group('out/train/').items()}, 1e-4)
    total.backward()
    assert_gradients_close(model, golden, 1e-4)


@pytest.mark.parametrize('name', [name for name in CASES if 'out/eval/s2_cls_score' in Golden(name)])
def test_golden_predictions(name):
    golden = Golden(name)
    check_predictions(detector(golden).eval(), golden)
    if any(key.startswith('0') for key in golden.group('out/pan_lowthr/panoptic_')):
        low = detector(golden, instance_score_thr=0.05, overlap_thr=0.3).eval()
        samples = golden_samples(golden)
        with torch.no_grad():
            low(golden['in/img'], samples, mode='predict')
        for i, sample in enumerate(samples):
            check_panoptic(sample, golden[f'out/pan_lowthr/panoptic_{i}'], golden, i)


def trained(kind, **test_cfg):
    golden = Golden(f'knet_{kind}_trained')
    return detector(golden, instance_on=True, **test_cfg).eval(), golden


def predictions(model, images, samples):
    with torch.no_grad():
        return model(images, samples, mode='predict')


def flat(sample):
    """All results of an image as plain tensors."""
    instances = sample.pred_instances
    results = dict(scores=instances.scores, labels=instances.labels, masks=instances.masks, boxes=instances.bboxes)
    if 'pred_panoptic_seg' in sample:
        results |= dict(panoptic=sample.pred_panoptic_seg.sem_seg, semantic=sample.pred_sem_seg.sem_seg)
    return results


def assert_same(actual, expected):
    """Equal results but for ties: maps in a few pixels, boxes by the pixel that such a one moves them."""
    for key, value in expected.items():
        difference = (actual[key].double() - value.double()).abs()
        allowed = dict(scores=1e-4, labels=0, boxes=1).get(key)
        if allowed is None:
            assert (difference > 0).sum() <= TIES, key
        else:
            assert difference.max() <= allowed, key


@pytest.mark.parametrize('kind', ['instance', 'panoptic'])
def test_batch_of_three_is_three_batches_of_one(kind):
    """Images of unlike sizes, each padded as in the batch."""
    model, golden = trained(kind)
    images = torch.cat([golden['in/img'], golden['in/img'][:1].flip(-1)])
    samples = [*golden_samples(golden), golden_samples(golden)[0]]
    samples[2].set_metainfo(dict(img_shape=(100, 160), ori_shape=(50, 80)))
    together = predictions(model, images, [sample.clone() for sample in samples])
    for i, sample in enumerate(samples):
        alone, = predictions(model, images[i:i + 1], [sample.clone()])
        assert_same(flat(together[i]), flat(alone))


def test_losses_of_three_images():
    """The official code breaks above two images; here the sums over a batch are those of its images."""
    golden = Golden('knet_panoptic_trained')
    model = detector(golden).train()
    images = torch.cat([golden['in/img'], golden['in/img'][:1]])
    samples = golden_samples(golden)
    losses = model.loss(images, [*samples, samples[0].clone()])
    first, second = (model.loss(golden['in/img'][i:i + 1], [samples[i]]) for i in range(2))
    # Matched kernels of each image: what the mask, dice and class losses are averaged over.
    labels = [sample.gt_sem_seg.sem_seg.unique() for sample in samples]
    pairs = [len(sample.gt_instances.labels) + int(((label >= 6) & (label != 255)).sum())
             for sample, label in zip(samples, labels, strict=True)]
    assert losses.keys() == first.keys()
    for key, value in losses.items():
        if key.endswith('loss_rank'):  # a mean over pixels
            weights = (2, 1)
        elif key.startswith(('s1.loss', 's2.loss', 's3.loss')):
            weights = (2 * pairs[0], pairs[1])
        else:
            continue
        expected = (weights[0] * first[key] + weights[1] * second[key]) / sum(weights)
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('kind', ['instance', 'panoptic'])
def test_results_do_not_depend_on_the_order_of_the_kernels(kind):
    model, golden = trained(kind)
    before = predictions(model, golden['in/img'], golden_samples(golden))
    weight = model.panoptic_head.kernel_head.init_kernels.weight
    weight.data = weight.data[torch.randperm(len(weight), generator=torch.Generator().manual_seed(1))]
    after = predictions(model, golden['in/img'], golden_samples(golden))
    for sample, other in zip(before, after, strict=True):
        assert_same(flat(other), flat(sample))


def test_flipping_the_image_flips_the_masks():
    """Within tolerance: positions and strides are not symmetric, a trained model nearly is."""
    model, golden = trained('panoptic')
    image, sample = golden['in/img'][1:], golden_samples(golden)[1]  # fills its padded size
    plain, = predictions(model, image, [sample.clone()])
    flipped, = predictions(model, image.flip(-1), [sample.clone()])
    agreement = (plain.pred_sem_seg.sem_seg == flipped.pred_sem_seg.sem_seg.flip(-1)).float().mean()
    assert agreement > 0.9
    # Every sure instance is there again, mirrored, of the same class.
    sure = plain.pred_instances[plain.pred_instances.scores > 0.3]
    assert len(sure) >= 2
    mirrored = flipped.pred_instances.masks.flip(-1)
    for label, mask in zip(sure.labels, sure.masks, strict=True):
        same_class = mirrored[flipped.pred_instances.labels == label]
        overlap = (same_class & mask).sum((1, 2)) / (same_class | mask).sum((1, 2))
        assert overlap.max() > 0.8


def test_what_lies_in_the_padding_is_not_seen_in_the_targets():
    """More padding leaves the targets inside the image as they are, and puts nothing outside."""
    golden = Golden('knet_panoptic_trained')
    samples = golden_samples(golden)
    plain = segment_targets(samples, (32, 40), 6, 4)
    for sample in samples:
        sample.set_metainfo(dict(batch_input_shape=(192, 256)))
    padded = segment_targets(samples, (48, 64), 6, 4)
    torch.testing.assert_close(padded.masks[:, :32, :40], plain.masks)
    assert not padded.masks[:, 32:].any() and not padded.masks[:, :, 40:].any()
    assert (padded.unlabelled[:, 32:] == 1).all() and (padded.unlabelled[:, :, 40:] == 1).all()


def test_classes_must_be_said():
    cfg = detector_config(Golden('knet_panoptic_trained').config)
    del cfg['panoptic_head']['num_stuff_classes']
    with pytest.raises(ValueError, match='panoptic_head must set num_stuff_classes'):
        build(cfg)


def test_classes_of_the_two_heads_must_agree():
    cfg = detector_config(Golden('knet_panoptic_trained').config)
    cfg['panoptic_fusion_head'] = dict(type='knet_plugin.KNetFusionHead', num_things_classes=6, num_stuff_classes=3)
    with pytest.raises(ValueError, match='num_stuff_classes=4, but panoptic_fusion_head has num_stuff_classes=3'):
        build(cfg)
