"""What each kernel of a model does in an image, stage by stage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from knet_plugin.core import KernelInteraction, SoftmaxMask
from knet_plugin.inference.predictor import Predictor

__all__ = ['KernelTrace', 'TraceError', 'average_masks', 'trace_kernels']


class TraceError(ValueError):
    """A model has no kernels to look at; the message says why."""


@dataclass(frozen=True)
class KernelTrace:
    """What the N kernels of an image do in S stages.

    Attributes:
        masks: Probabilities M_0 .. M_S at the stride of the features, (S + 1, N, h, w), without padding.
        labels: Class of each kernel after each stage, as in the panoptic map: a fixed stuff kernel has its own, (S, N).
            None if kernels are not classified because each stands for one class (semantic segmentation).
        scores: Probabilities of these classes, (S, N); None as for ``labels``.
        attention: How much a kernel (row) takes from each other one (column) in Eq. 6, the mean of all heads,
            (S, N, N); rows sum to 1. None if a stage has no ``KernelInteraction``.
        from_image: Whether the kernels of things are made anew for each image, so that a number means nothing in
            another one.
    """

    masks: np.ndarray
    labels: np.ndarray | None
    scores: np.ndarray | None
    attention: np.ndarray | None
    from_image: bool


@torch.no_grad()
def trace_kernels(predictor: Predictor, image: Any) -> KernelTrace:
    """Run a model on an image, and keep what its kernels do.

    Args:
        predictor: A model with K-Net: a ``KNet``, or a segmentor with an ``IterativeDecodeHead``.
        image: What the predictor takes.

    Raises:
        TraceError: The model is another one.
        ValueError: The image cannot be read.
    """
    model = predictor.model
    inputs, sample = predictor.prepare(image)
    attended: list[Tensor] = []
    handles = [part.attention.register_forward_pre_hook(lambda _, given: attended.append(given[0]))
               for part in model.modules() if isinstance(part, KernelInteraction)]
    try:
        logits, classes, stages, from_image = _run(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    masks = [stage.sigmoid() for stage in logits]
    if isinstance(stages[0].mask_activation, SoftmaxMask):
        masks = [stage.softmax(dim=1) for stage in logits]
    size = masks[-1].shape[-2:]
    kept = [max(1, round(side * valid / padded)) for side, valid, padded in zip(
        size, sample.img_shape[:2], inputs.shape[-2:], strict=True)]
    masks = [interpolate(stage, size, mode='bilinear', align_corners=False) for stage in masks]  # M_0 may be smaller
    attention = None
    if len(attended) == len(stages):
        attention = [stage.interaction.attention(given, given, given)[1] for stage, given in zip(
            stages, attended, strict=True)]
    labels = scores = None
    if classes is not None:
        found = [model.panoptic_fusion_head.candidates(stage[0].sigmoid()) for stage in classes]
        scores, labels = (torch.stack(each).cpu().numpy() for each in zip(*found, strict=True))
    return KernelTrace(_array(masks)[..., :kept[0], :kept[1]], labels, scores,
                       None if attention is None else _array(attention), from_image)


def average_masks(predictor: Predictor, images: Iterable[Any], side: int = 96) -> np.ndarray:
    """Mean probability of each kernel's last mask over images that are stretched to squares, (N, side, side), Fig. 4a.

    Raises:
        TraceError: The model has no kernels, or makes those of things anew for each image.
        ValueError: An image cannot be read, or there is none.
    """
    total: Any = 0.
    count = 0
    for image in images:
        trace = trace_kernels(predictor, image)
        if trace.from_image:
            raise TraceError('this model makes its kernels anew for each image, so they have no average')
        total = total + interpolate(torch.from_numpy(trace.masks[-1])[None], (side, side), mode='bilinear')[0].numpy()
        count += 1
    if not count:
        raise ValueError('there are no images to average over')
    return np.asarray(total / count)


def _run(model: Any, inputs: Tensor) -> tuple[list[Tensor], list[Tensor] | None, list[Any], bool]:
    """Mask logits M_0 .. M_S, class logits, the stages, and whether kernels come from the image."""
    head: Any = getattr(model, 'panoptic_head', None)
    if hasattr(head, 'kernel_update_head'):
        proposals, updates = head.stages(model.extract_feat(inputs))
        logits = [proposals.mask_logits, *(update.mask_logits for update in updates)]
        return (logits, [update.class_logits for update in updates], list(head.kernel_update_head),
                proposals.centre_logits is not None)
    head = getattr(model, 'decode_head', None)
    if not hasattr(head, 'stage_logits') or not head.kernel_update_head:
        raise TraceError('only KNet, and segmentors whose one decode head is an IterativeDecodeHead, have stages; this '
                         f'is {type(model).__name__} with {type(head).__name__}')
    return head.stage_logits(model.extract_feat(inputs)), None, list(head.kernel_update_head), False


def _array(stages: list[Tensor]) -> np.ndarray:
    """The first image of each stage, as one array."""
    return torch.stack([stage[0] for stage in stages]).float().cpu().numpy()
