"""Results and ground truth of mmdet's and mmseg's data samples, as ``Result``."""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import Tensor

from knet_plugin.visualization.result import VOID, Instance, Result, Segment

__all__ = ['result_of_sample', 'set_predictions', 'truth_of_sample']

OFFSET = 1000  # mmdet's INSTANCE_OFFSET: its panoptic maps hold class + OFFSET * segment


def result_of_sample(sample: BaseDataElement, meta: Mapping[str, Any]) -> Result:
    """Predictions of a sample.

    Args:
        sample: A ``DetDataSample`` or ``SegDataSample`` with at least one of ``pred_panoptic_seg``, ``pred_instances``
            (masks as a tensor (n, H, W) or as n run-length encodings) and ``pred_sem_seg``.
        meta: ``dataset_meta`` of the model or ``metainfo`` of the data set: ``classes``, and ``thing_classes`` if some
            classes are stuff; things come first.

    Raises:
        ValueError: The sample has no predictions.
    """
    parts: dict[str, Any] = {}
    if (data := sample.get('pred_panoptic_seg')) is not None:
        parts['panoptic'], parts['segments'] = _segments(_plane(data), meta, data)
        size = parts['panoptic'].shape
    if (data := sample.get('pred_sem_seg')) is not None:
        small = len(meta['classes']) <= VOID
        parts['semantic'] = _plane(data).to(torch.uint8 if small else torch.int32).cpu().numpy()
        size = parts['semantic'].shape
    if (data := sample.get('pred_instances')) is not None:
        parts['instances'] = _instances(data)
        size = tuple(sample.metainfo['ori_shape'][:2])
    if not parts:
        raise ValueError(f'the sample has no predictions, only {sorted(sample.keys())}')
    return Result((int(size[0]), int(size[1])), **parts)


def truth_of_sample(sample: BaseDataElement, meta: Mapping[str, Any] | None = None) -> Result:
    """Ground truth of a sample, at the size of the original image; augmentations of the training stay in it.

    Args:
        sample: What the hosts' pipelines pack: ``gt_instances`` with masks, ``gt_sem_seg``, or both (panoptic).
        meta: See ``result_of_sample``. Without it, only classes that have objects here count as things.
    """
    size = tuple(int(length) for length in sample.metainfo['ori_shape'][:2])
    parts: dict[str, Any] = {}
    semantic, masks, labels = None, None, []
    if (data := sample.get('gt_sem_seg')) is not None:
        semantic = _fit(_plane(data).cpu().numpy().astype(np.int32), sample, size)
        parts['semantic'] = semantic if semantic.max(initial=0) > VOID else semantic.astype(np.uint8)
    if (data := sample.get('gt_instances')) is not None and 'masks' in data:
        masks = [_fit(mask, sample, size) for mask in data.masks.to_ndarray()]
        labels = data.labels.tolist()
        parts['instances'] = [_object(label, mask) for label, mask in zip(labels, masks, strict=True)]
    if semantic is not None and masks is not None:
        parts['panoptic'], parts['segments'] = _merge(semantic, masks, labels, meta)
    return Result((size[0], size[1]), **parts)


def set_predictions(sample: BaseDataElement, result: Result, classes: int) -> None:
    """Add a result to a sample of the hosts, as their metrics read it: the reverse of ``result_of_sample``.

    Args:
        sample: A ``DetDataSample`` or ``SegDataSample``.
        result: Predictions.
        classes: Number of classes, which is void in mmdet's panoptic maps.
    """
    field = 'sem_seg' if hasattr(type(sample), 'gt_instances') else 'data'  # of mmdet, of mmseg
    if result.semantic is not None:
        sample.set_data(dict(pred_sem_seg=_pixels(field, result.semantic)))
    if result.panoptic is not None:
        values = np.full(len(result.segments) + 1, classes)
        scores = [0. if segment.score is None else segment.score for segment in result.segments]
        for segment in result.segments:
            values[segment.id] = segment.label + OFFSET * segment.id
        panoptic = _pixels('sem_seg', values[result.panoptic])
        panoptic.set_metainfo(dict(segment_scores=scores, segment_kernels=[each.kernel for each in result.segments]))
        sample.set_data(dict(pred_panoptic_seg=panoptic))
    if result.instances is not None:
        sample.set_data(dict(pred_instances=InstanceData(
            labels=torch.tensor([each.label for each in result.instances], dtype=torch.long),
            scores=torch.tensor([each.score for each in result.instances]),
            bboxes=torch.tensor([each.box for each in result.instances]).reshape(-1, 4),
            masks=[each.mask for each in result.instances])))
        if all(each.kernel is not None for each in result.instances):
            sample.pred_instances.kernels = torch.tensor([each.kernel for each in result.instances], dtype=torch.long)


def _pixels(field: str, plane: np.ndarray) -> PixelData:
    return PixelData(**{field: torch.from_numpy(plane.astype(np.int64))[None]})


def _plane(data: Any) -> Tensor:
    """The map (H, W) of mmdet's or mmseg's ``PixelData``."""
    return (data.sem_seg if 'sem_seg' in data else data.data)[0]


def _segments(values: Tensor, meta: Mapping[str, Any], data: PixelData) -> tuple[np.ndarray, list[Segment]]:
    """Number the segments of mmdet's panoptic map from 1 in the order of its values; void is 0.

    ``data`` has scores and kernels of K-Net's segments. Stuff gets no score, because thresholds are for things.
    """
    scores, kernels = data.get('segment_scores'), data.get('segment_kernels')
    things = len(meta.get('thing_classes') or meta['classes'])
    flat = values.cpu().numpy().ravel()  # bincount: unique would sort all pixels
    found = [int(value) for value in np.flatnonzero(np.bincount(flat)) if value % OFFSET < len(meta['classes'])]
    numbers = np.zeros(flat.max(initial=0) + 1, np.int32)
    numbers[found] = range(1, len(found) + 1)
    segments = [Segment(id, value % OFFSET, value % OFFSET < things,
                        None if scores is None or value % OFFSET >= things else scores[value // OFFSET - 1],
                        None if kernels is None else kernels[value // OFFSET - 1])
                for id, value in enumerate(found, start=1)]
    return numbers[flat].reshape(values.shape), segments


def _instances(data: InstanceData) -> list[Instance]:
    if 'masks' not in data:
        raise ValueError('pred_instances has no masks: the model finds boxes only')
    order = data.scores.argsort(descending=True, stable=True).tolist()
    labels, scores, boxes = data.labels.tolist(), data.scores.tolist(), data.bboxes.tolist()
    kernels = data.kernels.tolist() if 'kernels' in data else [None] * len(order)
    return [Instance(labels[i], scores[i], tuple(boxes[i]), _encode(data.masks[i]), kernels[i]) for i in order]


def _encode(mask: Any) -> dict[str, Any]:
    """Run-length encoding of a mask (H, W); encodings stay."""
    import pycocotools.mask as mask_utils  # here, because semantic segmentation works without it

    if isinstance(mask, dict):
        return mask
    if isinstance(mask, Tensor):
        mask = mask.cpu().numpy()
    encoding: dict[str, Any] = mask_utils.encode(cv2.transpose(np.ascontiguousarray(mask, dtype=np.uint8)).T)
    return encoding


def _object(label: int, mask: np.ndarray) -> Instance:
    import pycocotools.mask as mask_utils

    encoding = _encode(mask)
    x, y, width, height = mask_utils.toBbox(encoding).tolist()
    return Instance(label, None, (x, y, x + width, y + height), encoding)


def _fit(plane: np.ndarray, sample: BaseDataElement, size: tuple[int, ...]) -> np.ndarray:
    """Crop a map (h, w) that has another size to the image without padding, and take the nearest pixels."""
    if plane.shape == size:
        return plane
    height, width = sample.metainfo['img_shape'][:2]
    return cv2.resize(plane[:height, :width], size[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def _merge(semantic: np.ndarray, masks: list[np.ndarray], labels: list[int],
           meta: Mapping[str, Any] | None) -> tuple[np.ndarray, list[Segment]]:
    """Panoptic map of objects and of what else the label map holds: one segment per class."""
    panoptic = np.zeros(semantic.shape, np.int32)
    segments: list[Segment] = []
    for mask, label in zip(masks, labels, strict=True):
        segments.append(Segment(len(segments) + 1, label, True))
        panoptic[mask.astype(bool)] = segments[-1].id
    rest = np.where(panoptic == 0, semantic, VOID)
    things = set(labels) if meta is None else range(len(meta.get('thing_classes') or meta['classes']))
    for label in np.unique(rest).tolist():
        if label != VOID:
            segments.append(Segment(len(segments) + 1, label, label in things))
            panoptic[rest == label] = segments[-1].id
    return panoptic, segments
