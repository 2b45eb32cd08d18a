"""Data samples as results, and their ground truth."""

import numpy as np
import pycocotools.mask as mask_utils
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from knet_plugin.visualization import VOID, Instance, Result, Segment
from knet_plugin.visualization.sample_result import result_of_sample, set_predictions, truth_of_sample

META = dict(classes=('cat', 'dog', 'sky'), thing_classes=('cat', 'dog'))
SIZE = dict(ori_shape=(2, 4), img_shape=(4, 8))


def instances(masks, scores=(0.2, 0.9)):
    boxes = torch.tensor([[0., 0., 1., 2.], [1., 0., 3., 1.]])
    return InstanceData(bboxes=boxes, labels=torch.tensor([0, 1]), scores=torch.tensor(scores), masks=masks)


MASKS = torch.tensor([[[1, 0, 0, 0], [1, 0, 0, 0]], [[0, 1, 1, 0], [0, 0, 0, 0]]], dtype=torch.bool)


def test_panoptic_map_is_numbered_from_1_and_void_is_0():
    sample = DetDataSample(metainfo=SIZE)
    sample.pred_panoptic_seg = PixelData(sem_seg=torch.tensor([[[1000, 2000, 3002, 3], [1000, 2000, 3002, 3]]]))
    result = result_of_sample(sample, META)
    assert result.panoptic.tolist() == [[1, 2, 3, 0], [1, 2, 3, 0]] and result.size == (2, 4)
    assert result.segments == [Segment(1, 0, True), Segment(2, 0, True), Segment(3, 2, False)]
    assert result.instances is None and result.semantic is None


def test_things_have_the_scores_of_their_segments():
    sample = DetDataSample(metainfo=SIZE)
    sample.pred_panoptic_seg = PixelData(sem_seg=torch.tensor([[[2000, 1001, 3002, 3]] * 2]),
                                         metainfo=dict(segment_scores=[0.75, 0.5, 0.25]))
    segments = result_of_sample(sample, META).segments
    assert [(segment.label, segment.score) for segment in segments] == [(1, 0.75), (0, 0.5), (2, None)]


def test_void_alone():
    sample = DetDataSample(metainfo=SIZE)
    sample.pred_panoptic_seg = PixelData(sem_seg=torch.full((1, 2, 4), 3))
    result = result_of_sample(sample, META)
    assert not result.panoptic.any() and result.segments == []


def test_instances_come_best_first_from_arrays_or_encodings():
    encodings = [mask_utils.encode(np.asfortranarray(mask.numpy().astype(np.uint8))) for mask in MASKS]
    results = []
    for masks in (MASKS, encodings):
        sample = DetDataSample(metainfo=SIZE)
        sample.pred_instances = instances(masks)
        results.append(result_of_sample(sample, META))
    assert results[0] == results[1]
    first, second = results[0].instances
    assert (first.label, first.score, first.box) == (1, pytest.approx(0.9), (1, 0, 3, 1))
    assert mask_utils.decode(first.mask).tolist() == MASKS[1].int().tolist() and second.label == 0


def test_no_instances():
    sample = DetDataSample(metainfo=SIZE)
    sample.pred_instances = instances(MASKS)[:0]
    assert result_of_sample(sample, META).instances == []


def test_semantic_maps_of_both_hosts():
    labels = torch.tensor([[[0, 1, 2, 2], [0, 1, 2, 2]]])
    of_mmdet, of_mmseg = DetDataSample(metainfo=SIZE), SegDataSample(metainfo=SIZE)
    of_mmdet.pred_sem_seg, of_mmseg.pred_sem_seg = PixelData(sem_seg=labels), PixelData(data=labels)
    for sample in (of_mmdet, of_mmseg):
        semantic = result_of_sample(sample, META).semantic
        assert semantic.dtype == np.uint8 and semantic.tolist() == labels[0].tolist()


def test_without_predictions():
    with pytest.raises(ValueError, match='gt_sem_seg'):
        result_of_sample(SegDataSample(metainfo=SIZE, gt_sem_seg=PixelData(data=torch.zeros(1, 2, 4))), META)


def truth(masks, semantic=None, metainfo=SIZE, labels=(0, 1)):
    sample = DetDataSample(metainfo=metainfo)
    sample.gt_instances = InstanceData(masks=masks, labels=torch.tensor(labels[:len(masks)]))
    if semantic is not None:
        sample.gt_sem_seg = PixelData(sem_seg=torch.tensor(semantic)[None])
    return sample


SEMANTIC = [[0, 1, 1, 2], [0, 2, 255, 2]]


def test_truth_at_the_size_of_the_network_is_that_of_the_image():
    small = truth_of_sample(truth(BitmapMasks(MASKS.numpy().astype(np.uint8), 2, 4), SEMANTIC), META)
    large = np.kron(MASKS.numpy(), np.ones((1, 2, 2))).astype(np.uint8)
    padded = np.pad(large, ((0, 0), (0, 5), (0, 3)))
    semantic = np.pad(np.kron(SEMANTIC, np.ones((2, 2))).astype(np.int64), ((0, 5), (0, 3)), constant_values=7)
    resized = truth_of_sample(truth(BitmapMasks(padded, 9, 11), semantic), META)
    for each in (small, resized):
        assert each.semantic.tolist() == SEMANTIC
        assert [mask_utils.decode(one.mask).tolist() for one in each.instances] == MASKS.int().tolist()
        assert [one.box for one in each.instances] == [(0, 0, 1, 2), (1, 0, 3, 1)]
        assert each.panoptic.tolist() == [[1, 2, 2, 3], [1, 3, 0, 3]]
        assert each.segments == [Segment(1, 0, True), Segment(2, 1, True), Segment(3, 2, False)]


def test_truth_without_objects_or_without_maps():
    none = truth_of_sample(truth(BitmapMasks([], 2, 4), np.full((2, 4), VOID)), META)
    assert none.instances == [] and none.segments == [] and not none.panoptic.any()
    polygons = truth_of_sample(truth(PolygonMasks([[np.array([0., 0, 2, 0, 2, 2, 0, 2])]], 2, 4)))
    assert polygons.panoptic is None and polygons.semantic is None
    assert mask_utils.area(polygons.instances[0].mask) == 4
    semantic = truth_of_sample(SegDataSample(metainfo=SIZE, gt_sem_seg=PixelData(data=torch.tensor([SEMANTIC]))))
    assert semantic.semantic.tolist() == SEMANTIC and semantic.instances is None
    assert truth_of_sample(SegDataSample(metainfo=SIZE)).semantic is None


@pytest.mark.parametrize('kind', [DetDataSample, SegDataSample])
def test_results_become_samples_again(kind):
    encodings = [mask_utils.encode(np.asfortranarray(mask.numpy().astype(np.uint8))) for mask in MASKS]
    parts = dict(semantic=np.array([[0, 1, 2, 0], [0, 1, 2, 0]], np.uint8))
    if kind is DetDataSample:
        parts |= dict(panoptic=np.array([[1, 2, 3, 0], [1, 2, 3, 0]], np.int32),
                      segments=[Segment(1, 0, True, 0.5), Segment(2, 0, True, 0.25), Segment(3, 2, False)],
                      instances=[Instance(1, 0.75, (0., 0., 1., 2.), encodings[0]),
                                 Instance(0, 0.5, (1., 0., 3., 1.), encodings[1])])
    expected = Result((2, 4), **parts)
    sample = kind(metainfo=SIZE)
    set_predictions(sample, expected, len(META['classes']))
    found = result_of_sample(sample, META)
    for part in ('panoptic', 'semantic'):
        assert np.array_equal(getattr(found, part), getattr(expected, part))
    assert (found.segments, found.instances) == (expected.segments, expected.instances)
    if kind is DetDataSample:
        assert sample.pred_panoptic_seg.sem_seg[0, 0].tolist() == [1000, 2000, 3002, 3]
