"""Read-outs of any logits, at any sizes."""

from typing import Any

import torch
import torch.nn.functional as F
from hostile import LOGITS, make_logits, numbers, seeds, shares, try_inputs
from hypothesis import strategies as st
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from knet_plugin.detection import KNetFusionHead

BROKEN = ('finite', 'finite', 'nan', 'inf', '-inf', 'one nan')


@st.composite
def predictions(draw: Any) -> dict:
    """Sizes and kinds of what a model predicts for one image."""
    padded = draw(sides()), draw(sides())
    image = draw(st.integers(1, padded[0])), draw(st.integers(1, padded[1]))
    result = draw(st.one_of(st.just(image), st.tuples(sides(), sides())))
    return dict(
        padded=padded, image=image, result=result, cells=(draw(st.integers(1, 20)), draw(st.integers(1, 20))),
        kernels=draw(numbers(1, 2, 6, rare=50)), things=draw(st.integers(1, 3)), stuff=draw(st.integers(0, 3)),
        masks=draw(st.sampled_from(LOGITS)), classes=draw(st.sampled_from(LOGITS)),
        broken_masks=draw(st.sampled_from(BROKEN)), broken_classes=draw(st.sampled_from(BROKEN)),
        max_per_img=draw(st.sampled_from([1, 10, 1000])), rescale=draw(st.booleans()), seed=draw(seeds()))


def sides() -> st.SearchStrategy:
    """Pixels of one side, tiles of 32 and their neighbours among them."""
    return st.one_of(st.sampled_from([1, 2, 31, 32, 33, 64, 65]), st.integers(1, 150), st.just(2000))


def broken(logits: Tensor, how: str) -> Tensor:
    if how == 'one nan':
        logits.view(-1)[logits.numel() // 2] = torch.nan
    elif how != 'finite':
        logits[:] = float(how)
    return logits


def check_read_outs(case: dict) -> None:
    generator = torch.Generator().manual_seed(case['seed'])
    things, stuff = case['things'], case['stuff']
    kernels = case['kernels'] + stuff
    masks = broken(make_logits(case['masks'], (1, kernels, *case['cells']), generator), case['broken_masks'])
    classes = broken(make_logits(case['classes'], (1, kernels, things + stuff), generator), case['broken_classes'])
    head = KNetFusionHead(things, stuff, test_cfg=dict(max_per_img=case['max_per_img'], semantic_on=stuff > 0))
    sample = DetDataSample(metainfo=dict(batch_input_shape=case['padded'], img_shape=case['image'],
                                         ori_shape=case['result']))
    result, = head.predict(classes, masks, [sample], rescale=case['rescale'])
    size = case['result'] if case['rescale'] else case['image']
    assert result.keys() == {'pan_results', 'ins_results', *['sem_results'] * (stuff > 0)}
    check_instances(result['ins_results'], min(case['max_per_img'], case['kernels'] * things), things, size)
    check_panoptic(result['pan_results'].sem_seg, things + stuff, kernels, size)
    if stuff:
        semantic = result['sem_results'].sem_seg
        assert semantic.shape == (1, *size) and semantic.dtype == torch.int64
        assert semantic.min() >= 0 and semantic.max() < things + stuff
    if case['broken_masks'] == case['broken_classes'] == 'finite':
        maps = F.interpolate(masks.sigmoid(), case['padded'], mode='bilinear')
        maps = maps[..., :case['image'][0], :case['image'][1]]
        maps = F.interpolate(maps, size, mode='bilinear')[0] if case['rescale'] else maps[0]
        check_against_plain_resizing(result['ins_results'], classes[0].sigmoid(), maps, case['kernels'], things)


def check_instances(instances: InstanceData, count: int, things: int, size: tuple[int, int]) -> None:
    """Shapes, types and ranges, and boxes that fit the masks."""
    assert instances.masks.shape == (count, *size) and instances.masks.dtype == torch.bool
    assert instances.bboxes.shape == (count, 4) and instances.bboxes.dtype == torch.float32
    assert instances.labels.shape == instances.scores.shape == (count, )
    assert ((instances.labels >= 0) & (instances.labels < things)).all()
    assert ((instances.scores >= 0) & (instances.scores <= 1)).all()
    assert (instances.scores.diff() <= 0).all()
    x1, y1, x2, y2 = instances.bboxes.T
    assert ((x1 >= 0) & (x1 <= x2) & (x2 <= size[1]) & (y1 >= 0) & (y1 <= y2) & (y2 <= size[0])).all()
    assert ((x2 - x1) * (y2 - y1) >= instances.masks.flatten(1).sum(dim=1)).all()
    assert torch.equal((x2 - x1) * (y2 - y1) > 0, instances.masks.flatten(1).any(dim=1))


def check_panoptic(panoptic: Tensor, num_classes: int, kernels: int, size: tuple[int, int]) -> None:
    """Every pixel is void or a numbered segment of a class."""
    assert panoptic.shape == (1, *size) and panoptic.dtype == torch.int64
    ids = panoptic.unique()
    ids = ids[ids != num_classes]  # void
    assert ((ids % 1000 < num_classes) & (ids // 1000 >= 1) & (ids // 1000 <= kernels)).all()
    assert len((ids // 1000).unique()) == len(ids)  # one number is one segment


def check_against_plain_resizing(instances: InstanceData, scores: Tensor, maps: Tensor, kernels: int,
                                 things: int) -> None:
    """The masks are those of the resized probabilities, but for pixels that lie on the threshold."""
    best, pairs = scores[:kernels, :things].flatten().topk(len(instances.scores))
    assert torch.equal(instances.scores, best)
    expected = maps[pairs // things]
    assert ((instances.masks == (expected > 0.5)) | ((expected - 0.5).abs() < 1e-4)).all()


@shares(60, 500)
def test_read_outs_are_in_range(count):
    try_inputs(check_read_outs, predictions(), count)
