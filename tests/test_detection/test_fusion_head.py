"""Post-processing against the official procedure, and its laws."""

import plain_knet
import pycocotools.mask as mask_utils
import pytest
import torch
import torch.nn.functional as F
from detection_cases import check_predictions, detector
from golden import Golden
from mmdet.structures import DetDataSample

from knet_plugin.detection import KNetFusionHead, resized_masks

THINGS, STUFF, KERNELS = 3, 2, 6


def logits(seed=0, batch=1, size=(8, 12)):
    generator = torch.Generator().manual_seed(seed)
    small = torch.randn(batch, KERNELS + STUFF, 2, 3, generator=generator) * 6
    masks = F.interpolate(small, size, mode='bilinear')
    return torch.randn(batch, KERNELS + STUFF, THINGS + STUFF, generator=generator), masks


def image(img_shape=(32, 48), ori_shape=(32, 48), padded=(32, 48)):
    return DetDataSample(metainfo=dict(img_shape=img_shape, ori_shape=ori_shape, batch_input_shape=padded))


def head(**test_cfg):
    return KNetFusionHead(THINGS, STUFF, dict(dict(semantic_on=True, max_per_img=10), **test_cfg))


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('thresholds', [(0.3, 0.6), (0.05, 0.3), (0.7, 0.9)])
def test_panoptic_map_is_that_of_the_official_procedure(seed, thresholds):
    class_logits, mask_logits = logits(seed)
    fusion = head(instance_score_thr=thresholds[0], overlap_thr=thresholds[1])
    result = fusion.predict(class_logits, mask_logits, [image()])[0]['pan_results'].sem_seg
    masks = F.interpolate(mask_logits.sigmoid(), (32, 48), mode='bilinear')[0]
    candidates = fusion.candidates(class_logits[0].sigmoid())
    assert torch.equal(result[0], plain_knet.panoptic(*candidates, masks, THINGS, THINGS + STUFF, *thresholds))


def test_every_kernel_stands_for_one_class():
    """A thing kernel for its best thing class, a stuff kernel for its own."""
    class_logits, _ = logits()
    scores, labels = head().candidates(class_logits[0])
    for k in range(KERNELS):
        assert scores[k] == class_logits[0, k, :THINGS].max() == class_logits[0, k, labels[k]]
    assert labels[KERNELS:].tolist() == [THINGS, THINGS + 1]
    assert scores[KERNELS:].tolist() == [class_logits[0, KERNELS, THINGS], class_logits[0, KERNELS + 1, THINGS + 1]]


def check_equal(results, expected):
    assert results.keys() == expected.keys()
    assert torch.equal(results['pan_results'].sem_seg, expected['pan_results'].sem_seg)
    assert torch.equal(results['sem_results'].sem_seg, expected['sem_results'].sem_seg)
    for name in ('scores', 'labels', 'bboxes', 'masks'):
        assert torch.equal(results['ins_results'][name], expected['ins_results'][name])


def test_order_of_thing_kernels_does_not_matter():
    class_logits, mask_logits = logits()
    order = torch.cat([torch.randperm(KERNELS, generator=torch.Generator().manual_seed(0)),
                       torch.arange(KERNELS, KERNELS + STUFF)])
    expected, = head().predict(class_logits, mask_logits, [image()])
    results, = head().predict(class_logits[:, order], mask_logits[:, order], [image()])
    check_equal(results, expected)


def test_results_name_their_kernels():
    class_logits, mask_logits = logits()
    results, = head(overlap_thr=0.1).predict(class_logits, mask_logits, [image()])
    masks = F.interpolate(mask_logits.sigmoid(), (32, 48), mode='bilinear')[0] > 0.5
    found = results['ins_results']
    assert torch.equal(masks[found.kernels], found.masks)
    assert torch.equal(class_logits[0].sigmoid()[found.kernels, found.labels], found.scores)
    panoptic = results['pan_results']
    scores, labels = head().candidates(class_logits[0].sigmoid())
    assert torch.equal(scores[panoptic.segment_kernels], torch.tensor(panoptic.segment_scores))
    values = {int(labels[kernel]) + 1000 * number for number, kernel in enumerate(panoptic.segment_kernels, start=1)}
    assert len(values) > 1 and values == set(panoptic.sem_seg.unique().tolist()) - {THINGS + STUFF}


def test_a_batch_gives_the_results_of_its_images():
    class_logits, mask_logits = logits(batch=2)
    samples = [image((30, 40), (60, 80)), image((32, 24), (16, 12))]
    for i, results in enumerate(head().predict(class_logits, mask_logits, samples)):
        expected, = head().predict(class_logits[i:i + 1], mask_logits[i:i + 1], samples[i:i + 1])
        check_equal(results, expected)


def test_sizes():
    """Upsampled to the padded image, cropped to the image, resized to the original."""
    class_logits, mask_logits = logits(batch=2)
    samples = [image((30, 40), (60, 80)), image((32, 24), (16, 12))]
    for rescale, sizes in ((True, [(60, 80), (16, 12)]), (False, [(30, 40), (32, 24)])):
        for result, size in zip(head().predict(class_logits, mask_logits, samples, rescale), sizes, strict=True):
            assert result['pan_results'].sem_seg.shape == result['sem_results'].sem_seg.shape == (1, *size)
            assert result['ins_results'].masks.shape == (10, *size)


def test_instances_are_the_best_pairs():
    class_logits, mask_logits = logits()
    result = head().predict(class_logits, mask_logits, [image()])[0]['ins_results']
    things = class_logits[0, :KERNELS, :THINGS].sigmoid()
    assert torch.equal(result.scores, things.flatten().sort(descending=True).values[:10])
    masks = F.interpolate(mask_logits.sigmoid(), (32, 48), mode='bilinear')[0] > 0.5
    for score, label, mask, box in zip(result.scores, result.labels, result.masks, result.bboxes, strict=True):
        kernel, = (things[:, label] == score).nonzero()
        assert torch.equal(mask, masks[kernel.item()])
        if mask.any():
            rows, columns = mask.nonzero().unbind(1)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        else:
            assert box.tolist() == [0, 0, 0, 0]


def test_mask_scores_multiply_class_scores_by_the_certainty_of_the_mask():
    class_logits, mask_logits = logits(batch=2)
    class_logits[:, 1], mask_logits[:, 1] = class_logits[:, 0], mask_logits[:, 0] / 4  # the same, less certain
    mask_logits[:, 2] = -1  # empty
    outside = mask_logits.clone()
    outside[..., 9:] = 20  # in the padding
    for masks in (mask_logits, outside):
        result = head(mask_scores=True, max_per_img=99).predict(class_logits, masks, [image((32, 36), (32, 36))] * 2)
        for scores, probabilities, found in zip(class_logits.sigmoid(), masks.sigmoid()[..., :9], result, strict=True):
            means = torch.stack([mask[mask > 0.5].mean() if (mask > 0.5).any() else torch.zeros(())
                                 for mask in probabilities[:KERNELS]])
            expected = (scores[:KERNELS, :THINGS] * means[:, None]).flatten().sort(descending=True).values
            assert means[1] < means[0] and means[2] == 0
            assert torch.allclose(found['ins_results'].scores, expected)


def test_empty_mask_has_an_empty_box():
    class_logits, mask_logits = logits()
    result = head().predict(class_logits, torch.full_like(mask_logits, -9), [image()])[0]
    assert not result['ins_results'].bboxes.any() and not result['ins_results'].masks.any()
    assert (result['pan_results'].sem_seg == THINGS + STUFF).all()  # no segment is kept: void


def test_fewer_pairs_than_asked_for():
    class_logits, mask_logits = logits()
    result = head(max_per_img=100).predict(class_logits, mask_logits, [image()])[0]['ins_results']
    assert len(result) == KERNELS * THINGS


def test_semantic_map_is_the_class_of_the_pixels_owner():
    """Where the panoptic map keeps a segment, both say the same class; the semantic map has no void."""
    class_logits, mask_logits = logits()
    result = head().predict(class_logits, mask_logits, [image()])[0]
    panoptic, semantic = result['pan_results'].sem_seg % 1000, result['sem_results'].sem_seg
    kept = panoptic < THINGS + STUFF
    assert kept.any() and torch.equal(panoptic[kept], semantic[kept])
    assert ((semantic >= 0) & (semantic < THINGS + STUFF)).all()


def test_things_alone():
    class_logits, mask_logits = logits()
    fusion = KNetFusionHead(THINGS, 0, dict(panoptic_on=True))
    result = fusion.predict(class_logits[:, :, :THINGS], mask_logits, [image()])[0]
    assert result.keys() == {'pan_results', 'ins_results'}
    labels = result['pan_results'].sem_seg % 1000
    assert ((labels <= THINGS) & (labels >= 0)).all()


def test_what_lies_in_the_padding_does_not_matter():
    """Beyond the cell next to the image's border, which interpolation reaches, mask logits change no result."""
    class_logits, mask_logits = logits(size=(16, 24))
    sample = image((30, 40), (60, 80), padded=(64, 96))
    before, = head().predict(class_logits, mask_logits, [sample])
    mask_logits[:, :, 9:] += 50
    mask_logits[:, :, :, 11:] -= 50
    after, = head().predict(class_logits, mask_logits, [sample])
    check_equal(after, before)


@pytest.mark.parametrize('switches', [dict(panoptic_on=True), dict(instance_on=True), dict(semantic_on=True), {}])
def test_switches(switches):
    names = dict(panoptic_on='pan_results', instance_on='ins_results', semantic_on='sem_results')
    fusion = head(**(dict.fromkeys(names, False) | switches))
    assert {names[key] for key in switches} == fusion.predict(*logits(), [image()])[0].keys()


@pytest.mark.parametrize('stuff, test_cfg, message', [
    (2, dict(max_per_image=10), r"unknown keys \['max_per_image'\]"),
    (0, dict(semantic_on=True), 'num_stuff_classes=0'),
])
def test_bad_options(stuff, test_cfg, message):
    with pytest.raises(ValueError, match=message):
        KNetFusionHead(THINGS, stuff, test_cfg)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_does_not_round_post_processing(dtype):
    class_logits, mask_logits = logits(seed=3)
    sample = image((30, 40), (61, 83))
    plain, = head().predict(class_logits, mask_logits, [sample])
    with torch.autocast('cpu', dtype):
        cast, = head().predict(class_logits, mask_logits, [sample])
    check_equal(cast, plain)


def test_nan_counts_as_0():
    class_logits, mask_logits = logits()
    spoilt = class_logits.clone(), mask_logits.clone()
    for nan, low, spoil in (torch.nan, -torch.inf, 0), (torch.nan, -torch.inf, 1):
        spoilt[spoil][0, 1] = nan
        results, = head().predict(*spoilt, [image()])
        spoilt[spoil][0, 1] = low
        check_equal(results, head().predict(*spoilt, [image()])[0])


def test_stuff_alone():
    """Every pixel goes to a stuff class where no thing scores."""
    class_logits, mask_logits = logits()
    class_logits[:, :KERNELS] = -torch.inf
    results, = head(overlap_thr=0.).predict(class_logits, mask_logits.clamp(min=0), [image()])
    assert set((results['pan_results'].sem_seg % 1000).unique().tolist()) <= {THINGS, THINGS + 1}
    assert not results['ins_results'].scores.any()


def columns(*kernels):
    """Logits of kernels that each claim a range of the 48 columns with a class and a score."""
    class_logits, mask_logits = torch.full((1, len(kernels), THINGS + STUFF), -9.), torch.full(
        (1, len(kernels), 32, 48), -9.)
    for k, (label, score, start, end) in enumerate(kernels):
        class_logits[0, k, label] = torch.tensor(score).logit()
        mask_logits[0, k, :, start:end] = 9
    return class_logits, mask_logits


def test_fixed_stuff_kernels_have_no_threshold():
    class_logits, mask_logits = columns((0, .9, 0, 8), (THINGS, .1, 8, 16), (THINGS + 1, .1, 16, 48))
    panoptic = head().predict(class_logits, mask_logits, [image()])[0]['pan_results'].sem_seg % 1000
    assert panoptic[panoptic < THINGS + STUFF].unique().tolist() == [0, THINGS, THINGS + 1]


@pytest.mark.parametrize('values', [2 ** 26, 1000])
def test_strips_of_other_devices_give_the_same(values, monkeypatch):
    """They are as large as memory allows; here all devices but the CPU are told by a name that no device has."""
    class_logits, mask_logits = logits()
    arguments = torch.cat([mask_logits[0]] * 5).sigmoid(), 0.5, resized_masks.Sizes((64, 96), (60, 90), (121, 163))
    expected = resized_masks.binarize(*arguments)
    monkeypatch.setattr(resized_masks, 'STRIP_VALUES', values)
    monkeypatch.setattr(resized_masks, 'CACHED', 'none')
    strips = list(resized_masks.resized_strips(arguments[0], arguments[2]))
    assert len(strips) == 1 or values == 1000
    assert max(strip.numel() for _, _, strip in strips) <= max(values, 163)
    assert (resized_masks.binarize(*arguments) != expected).float().mean() < 1e-4  # other sums


@pytest.mark.parametrize('group', [1, 1000, 10 ** 6])
def test_masks_of_large_results_are_encoded(group, monkeypatch):
    monkeypatch.setattr(resized_masks, 'STRIP_VALUES', group)
    class_logits, mask_logits = logits()
    mask_logits[:, 1] = -9  # an empty mask
    sample = image((30, 40), (61, 83))
    dense, = head().predict(class_logits, mask_logits, [sample])
    encoded, = head(max_mask_pixels=10).predict(class_logits, mask_logits, [sample])
    masks = encoded['ins_results'].masks
    assert isinstance(masks, list) and len(masks) == 10
    assert torch.equal(torch.from_numpy(mask_utils.decode(masks)).permute(2, 0, 1).bool(), dense['ins_results'].masks)
    for name in ('bboxes', 'labels', 'scores'):
        assert torch.equal(encoded['ins_results'][name], dense['ins_results'][name])
    assert torch.equal(encoded['pan_results'].sem_seg, dense['pan_results'].sem_seg)
    assert len(encoded['ins_results'][:3]) == 3


@pytest.mark.parametrize('case', ['knet_panoptic_trained', 'knet_instance_trained'])
def test_golden(case):
    """The post-processing of the official model's own logits."""
    golden = Golden(case)
    model = detector(golden).eval()
    check_predictions(model, golden)
