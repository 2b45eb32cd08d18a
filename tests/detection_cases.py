"""Batches of mmdet data samples, from the goldens and made up, for the tests of the detection side."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from golden import Golden, assert_close, build, detector_config
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from knet_plugin.detection.targets import SegmentTargets


def sample(masks: Tensor, labels: Tensor, padded: tuple[int, int], semantic: Tensor | None = None,
           **metainfo) -> DetDataSample:
    """One image with ground truth; ``masks`` (G, h, w) has the size of the image."""
    height, width = masks.shape[-2:]
    data = DetDataSample(metainfo=dict(dict(img_path='0.jpg', img_shape=(height, width), ori_shape=(height, width),
                                            batch_input_shape=tuple(padded)), **metainfo))
    data.gt_instances = InstanceData(masks=BitmapMasks(masks.numpy().astype('uint8'), height, width), labels=labels)
    if semantic is not None:
        data.gt_sem_seg = PixelData(sem_seg=semantic[None])
    return data


def golden_samples(golden: Golden) -> list[DetDataSample]:
    """The batch of a whole-detector case; those of results alone have no ground truth."""
    samples = []
    padded = tuple(golden.info['batch_input_shape'])
    for i, meta in enumerate(golden.info['img_metas']):
        metainfo = dict(img_path=meta['filename'], img_shape=tuple(meta['img_shape'][:2]),
                        ori_shape=tuple(meta['ori_shape'][:2]), batch_input_shape=padded)
        data = DetDataSample(metainfo=metainfo)
        if f'in/gt_masks_{i}' in golden:
            semantic = golden['in/gt_semantic_seg'][i, 0].long() if 'in/gt_semantic_seg' in golden else None
            data = sample(golden[f'in/gt_masks_{i}'], golden[f'in/gt_labels_{i}'], padded, semantic, **metainfo)
        samples.append(data)
    return samples


def golden_targets(golden: Golden, images: Sequence[int] = (0, 1), harden: bool = False) -> SegmentTargets:
    """The targets of a case that gives them ready-made, at the size of the loss."""
    objects = [golden[f'in/gt_masks_{i}'] for i in images]
    labels = [golden[f'in/gt_labels_{i}'] for i in images]
    indices = [torch.full_like(label, i) for i, label in zip(images, labels, strict=True)]
    masks = [mask.bool().float() if harden else mask for mask in objects]
    for i in images:
        if f'in/gt_sem_cls_{i}' in golden:
            stuff = golden[f'in/gt_sem_cls_{i}']
            masks.append(golden[f'in/gt_sem_seg_{i}'][:len(stuff)])
            labels.append(stuff)
            indices.append(torch.full_like(stuff, i))
    num_objects = [len(mask) for mask in objects]
    return SegmentTargets(torch.cat(masks), torch.cat(labels), torch.cat(indices), num_objects, None)


def detector(golden: Golden, **test_cfg: Any) -> torch.nn.Module:
    """Our detector with the weights of a whole-detector case, renamed by itself while they are loaded."""
    model = build(detector_config(golden.config, **test_cfg))
    model.load_state_dict(golden.state)
    return model


def match_instances(golden: Golden) -> tuple[InstanceData, InstanceData]:
    """Predictions and ground truth of an assigner's case."""
    scores = {} if 'in/cls_pred' not in golden else dict(scores=golden['in/cls_pred'])
    return (InstanceData(masks=golden['in/mask_pred'], **scores),
            InstanceData(masks=golden['in/gt_masks'], labels=golden['in/gt_labels']))


def check_predictions(model: torch.nn.Module, golden: Golden) -> None:
    """Raw outputs and results of a whole-detector case."""
    samples = golden_samples(golden)
    with torch.no_grad():
        class_logits, mask_logits = model(golden['in/img'], samples, mode='tensor')
        final = model.panoptic_head.predict(model.extract_feat(golden['in/img']), samples)
        model(golden['in/img'], samples, mode='predict')
    assert_close({'s2_mask_preds': mask_logits[2], 'final_scaled_mask_preds': final[1]} |
                 {f's{i}_cls_score': logits for i, logits in enumerate(class_logits)}, golden.group('out/eval/'), 1e-4)
    for i, data in enumerate(samples):
        if f'out/inst/scores_{i}' in golden:
            check_instances(data, golden, i)
        if f'out/pan/panoptic_{i}' in golden:
            check_panoptic(data, golden[f'out/pan/panoptic_{i}'], golden, i)


def check_instances(data: DetDataSample, golden: Golden, image: int) -> None:
    """Instances of an image: labels identical, masks up to the ties that the case counts."""
    instances = data.pred_instances
    assert_close({'scores': instances.scores}, {'scores': golden[f'out/inst/scores_{image}']}, 1e-4)
    assert torch.equal(instances.labels, golden[f'out/inst/labels_{image}'])
    height, width = data.ori_shape
    packed = golden[f'out/inst/masks_packed_{image}'].numpy()
    masks = np.unpackbits(packed, axis=1, count=height * width).reshape(-1, height, width)
    ties = golden.info[f'inst_borderline_pixels_{image}']['|prob-0.5|<1e-5']
    assert (instances.masks.numpy() != masks).sum() <= ties * len(masks)
    # Differs on purpose: the official boxes are zeros, ours surround the masks.
    for box, mask in zip(instances.bboxes, instances.masks, strict=True):
        rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
        assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def check_panoptic(data: DetDataSample, expected: Tensor, golden: Golden, image: int) -> None:
    """The panoptic map of an image: the same segments, up to the ties that the case counts."""
    # Differs on purpose: the official segments are numbered from 0, and segment 0 of class 0 would be void to mmdet 3.
    expected = torch.where(expected == 10, 10, expected + 1000)
    panoptic = data.pred_panoptic_seg.sem_seg[0]
    assert (panoptic != expected).sum() <= golden.info[f'pan_info_{image}']['pixels_with_argmax_gap_below_1e_5']
    assert torch.equal(panoptic.unique(), expected.unique())  # numbered alike
