import pytest
import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

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


def plain_panoptic(class_logits, masks, instance_score_thr, overlap_thr):
    """The procedure segment by segment, as the official behaviour describes it."""
    scores = class_logits.sigmoid()
    candidates = [(*scores[k, :THINGS].max(0), k) for k in range(KERNELS)]
    candidates += [(scores[KERNELS + j, THINGS + j], torch.tensor(THINGS + j), KERNELS + j) for j in range(STUFF)]
    owner = torch.stack([score * mask for (score, _, _), mask in zip(candidates, masks, strict=True)]).argmax(0)
    result, number = torch.full(owner.shape, THINGS + STUFF), 0
    for score, label, k in sorted(candidates, key=lambda candidate: -candidate[0]):
        won, claimed = (owner == k), (masks[k] >= 0.5).sum()
        if (label < THINGS and score < instance_score_thr) or not won.any() or not claimed:
            continue
        if won.sum() / claimed < overlap_thr:
            continue
        number += 1
        result[won] = label + 1000 * number
    return result


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize('thresholds', [(0.3, 0.6), (0.05, 0.3), (0.7, 0.9)])
def test_panoptic_map_is_the_segment_by_segment_one(seed, thresholds):
    class_logits, mask_logits = logits(seed)
    fusion = head(instance_score_thr=thresholds[0], overlap_thr=thresholds[1])
    result = fusion.predict(class_logits, mask_logits, [image()])[0]['pan_results'].sem_seg
    masks = F.interpolate(mask_logits.sigmoid(), (32, 48), mode='bilinear')[0]
    assert torch.equal(result[0], plain_panoptic(class_logits[0], masks, *thresholds))


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


def test_empty_mask_has_an_empty_box():
    class_logits, mask_logits = logits()
    result = head().predict(class_logits, torch.full_like(mask_logits, -9), [image()])[0]
    assert not result['ins_results'].bboxes.any() and not result['ins_results'].masks.any()
    assert (result['pan_results'].sem_seg == THINGS + STUFF).all()  # nothing is claimed: void


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
    assert torch.equal(after['pan_results'].sem_seg, before['pan_results'].sem_seg)
    assert torch.equal(after['sem_results'].sem_seg, before['sem_results'].sem_seg)
    assert torch.equal(after['ins_results'].masks, before['ins_results'].masks)


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
def test_autocast_does_not_touch_the_read_out(dtype):
    class_logits, mask_logits = logits(seed=3)
    sample = image((30, 40), (61, 83))
    plain, = head().predict(class_logits, mask_logits, [sample])
    with torch.autocast('cpu', dtype):
        cast, = head().predict(class_logits, mask_logits, [sample])
    assert torch.equal(cast['pan_results'].sem_seg, plain['pan_results'].sem_seg)
    assert torch.equal(cast['ins_results'].masks, plain['ins_results'].masks)


def test_scores_that_are_not_numbers_count_as_0():
    """They would come first among the instances, and be written as NaN into files of results."""
    class_logits, mask_logits = logits()
    class_logits[0, 1] = torch.nan
    scores = head().predict(class_logits, mask_logits, [image()])[0]['ins_results'].scores
    class_logits[0, 1] = -torch.inf
    assert torch.equal(scores, head().predict(class_logits, mask_logits, [image()])[0]['ins_results'].scores)


class WaitingOperators(TorchDispatchMode):
    """Counts what makes the host wait for a device: results whose size depends on values, and reading values."""

    NAMES = ('nonzero', 'bincount', 'unique', '_unique', 'masked_select', '_local_scalar_dense', 'equal', 'is_nonzero')

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = operator._schema.name.removeprefix('aten::')
        self.count += name.startswith(self.NAMES)
        if name.startswith('index'):  # a mask of bool as index is a hidden nonzero
            indices = args[1] if isinstance(args[1], (tuple, list)) else ()
            self.count += any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
        return operator(*args, **(kwargs or {}))


class WaitingCalls(TorchFunctionMode):
    """Counts what reads values or moves them, of which operators on a CPU know nothing."""

    NAMES = ('tolist', 'item', 'cpu', 'cuda', 'numpy', '__bool__', '__int__', '__float__', '__index__', '__array__')

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, '__name__', '')
        self.count += name in self.NAMES or name == 'to' and not isinstance(args[1], torch.dtype)
        return function(*args, **(kwargs or {}))


def waits(things, stuff, noise, most, monkeypatch):
    monkeypatch.setattr(resized_masks, 'MOST', most)
    generator = torch.Generator().manual_seed(0)
    number = things + stuff
    masks = torch.randn(1, number, 40, 50, generator=generator) * 6
    if not noise:
        masks = F.interpolate(masks[..., :5, :5], (40, 50), mode='bilinear')
    classes = torch.randn(1, number, THINGS + stuff, generator=generator)
    fusion = KNetFusionHead(THINGS, stuff, dict(semantic_on=True, instance_score_thr=0., overlap_thr=0.))
    samples = [image((150, 190), (120, 160), (160, 200))]
    fusion.predict(classes, masks, samples)  # the matrices of these sizes are kept
    with WaitingCalls() as calls, WaitingOperators() as operators:
        result, = fusion.predict(classes, masks, samples)
    return calls.count, operators.count, len(result['pan_results'].sem_seg.unique())


@pytest.mark.parametrize('most', [0., 1.], ids=['row by row', 'tile by tile'])
@pytest.mark.parametrize('noise', [False, True])
def test_the_device_is_not_waited_for_more_often_with_more_masks(noise, most, monkeypatch):
    calls, operators, segments = waits(15, 5, noise, most, monkeypatch)
    many = waits(100, 53, noise, most, monkeypatch)
    assert many[2] > segments > 5
    assert many[:2] == (calls, operators) and 0 < operators < 15


def test_the_counters_see_what_waits():
    """So that the numbers above are not zeros that count nothing."""
    values = torch.arange(4.)
    with WaitingCalls() as calls, WaitingOperators() as operators:
        values[values > 1].sum().item()
        values.tolist()
        if values.nonzero().unique().sum() > 0:
            values.cpu()
    assert calls.count == 4 and operators.count == 5
