"""Batches of mmdet data samples, from the goldens and made up, for the tests of the detection side."""

from collections.abc import Sequence
from typing import Any

import torch
from golden import Golden, build, detector_config
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
    owners = [torch.full_like(label, i) for i, label in zip(images, labels, strict=True)]
    masks = [mask.bool().float() if harden else mask for mask in objects]
    for i in images:
        if f'in/gt_sem_cls_{i}' in golden:
            stuff = golden[f'in/gt_sem_cls_{i}']
            masks.append(golden[f'in/gt_sem_seg_{i}'][:len(stuff)])
            labels.append(stuff)
            owners.append(torch.full_like(stuff, i))
    return SegmentTargets(torch.cat(masks), torch.cat(labels), torch.cat(owners), [len(mask) for mask in objects], None)


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
