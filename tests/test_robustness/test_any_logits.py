"""Post-processing of any logits at any size."""

from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from robustness_inputs import LOGITS, SEEDS, examples, make_logits
from torch import Tensor

from knet_plugin.detection import KNetFusionHead

BROKEN = ('finite', 'finite', 'nan', 'inf', '-inf', 'one nan')
SIDES = st.one_of(st.sampled_from([1, 2, 31, 32, 33, 64, 65]), st.integers(1, 150), st.just(1000))


@st.composite
def predictions(draw: Any) -> dict:
    """Sizes and kinds of the predictions for one image."""
    padded = draw(SIDES), draw(SIDES)
    image = draw(st.integers(1, padded[0])), draw(st.integers(1, padded[1]))
    return dict(
        padded=padded, image=image, result=draw(st.one_of(st.just(image), st.tuples(SIDES, SIDES))),
        cells=(draw(st.integers(1, 20)), draw(st.integers(1, 20))), kernels=draw(st.sampled_from([1, 2, 6, 50])),
        things=draw(st.integers(1, 3)), stuff=draw(st.integers(0, 3)),
        masks=draw(st.sampled_from(LOGITS)), classes=draw(st.sampled_from(LOGITS)),
        broken_masks=draw(st.sampled_from(BROKEN)), broken_classes=draw(st.sampled_from(BROKEN)),
        max_per_img=draw(st.sampled_from([1, 10, 1000])), rescale=draw(st.booleans()), seed=draw(SEEDS))


def spoil(logits: Tensor, how: str) -> Tensor:
    if how == 'one nan':
        logits.view(-1)[logits.numel() // 2] = torch.nan
    elif how != 'finite':
        logits[:] = float(how)
    return logits


@examples(60)
@given(predictions())
def test_results_are_in_range(case):
    generator = torch.Generator().manual_seed(case['seed'])
    things, stuff = case['things'], case['stuff']
    kernels = case['kernels'] + stuff
    masks = spoil(make_logits(case['masks'], (1, kernels, *case['cells']), generator), case['broken_masks'])
    classes = spoil(make_logits(case['classes'], (1, kernels, things + stuff), generator), case['broken_classes'])
    head = KNetFusionHead(things, stuff, test_cfg=dict(max_per_img=case['max_per_img'], semantic_on=stuff > 0))
    sample = DetDataSample(metainfo=dict(batch_input_shape=case['padded'], img_shape=case['image'],
                                         ori_shape=case['result']))
    result, = head.predict(classes, masks, [sample], rescale=case['rescale'])
    size = case['result'] if case['rescale'] else case['image']
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
        check_masks(result['ins_results'], classes[0, :case['kernels'], :things].sigmoid(), maps)


def check_instances(instances: InstanceData, count: int, things: int, size: tuple[int, int]) -> None:
    """Shapes, types and ranges; boxes enclose the masks."""
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
    """Every pixel is void or belongs to a numbered segment of a class."""
    assert panoptic.shape == (1, *size) and panoptic.dtype == torch.int64
    ids = panoptic.unique()
    ids = ids[ids != num_classes]  # void
    assert ((ids % 1000 < num_classes) & (ids // 1000 >= 1) & (ids // 1000 <= kernels)).all()
    assert len((ids // 1000).unique()) == len(ids)


def check_masks(instances: InstanceData, scores: Tensor, maps: Tensor) -> None:
    """Masks are the resized probabilities above 0.5, except for pixels at the threshold."""
    best, pairs = scores.flatten().topk(len(instances.scores))
    assert torch.equal(instances.scores, best)
    expected = maps[pairs // scores.shape[1]]
    assert ((instances.masks == (expected > 0.5)) | ((expected - 0.5).abs() < 1e-4)).all()
