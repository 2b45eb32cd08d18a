"""Training targets: the ground-truth segments of a batch, and their assignment to kernels. Both are sparse."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample, SampleList
from torch import Tensor

from knet_plugin.core.feature_map import resize
from knet_plugin.core.image_name import image_name

__all__ = ['IGNORE_INDEX', 'Assignment', 'SegmentTargets', 'assign_stuff_kernels', 'rank_target', 'segment_targets',
           'semantic_target']

UNLABELLED = 255  # in mmdet's semantic maps
IGNORE_INDEX = -100  # torch's default for pixels that a loss ignores; 255 could be the index of a kernel


class SegmentTargets(NamedTuple):
    """All G segments of a batch at the size of the masks: the objects image by image, then the stuff segments."""

    masks: Tensor  # soft masks, (G, h, w) in [0, 1]
    labels: Tensor  # (G,)
    images: Tensor  # index of each segment's image, (G,)
    num_objects: list[int]  # of each of the B images
    unlabelled: Tensor | None  # unlabelled share of each pixel, (B, h, w) in [0, 1]; None without a semantic map

    def objects_of(self, image: int) -> slice:
        """Indices of the objects of an image."""
        start = sum(self.num_objects[:image])
        return slice(start, start + self.num_objects[image])


class Assignment(NamedTuple):
    """P matched pairs of a kernel and a segment, each field (P,). Unmatched kernels and segments do not appear."""

    images: Tensor
    kernels: Tensor  # 0 .. N - 1 in the image
    segments: Tensor  # indices in SegmentTargets

    def __add__(self, other: 'Assignment') -> 'Assignment':  # type: ignore[override]
        """The pairs of both."""
        return Assignment(*(torch.cat(pair) for pair in zip(self, other, strict=True)))


def segment_targets(batch_data_samples: SampleList, size: tuple[int, int], num_things_classes: int,
                    num_stuff_classes: int) -> SegmentTargets:
    """Bring the ground truth of a batch to the size of the masks.

    Masks and semantic maps are padded right and bottom to the size of the padded batch and resized to ``size`` by
    bilinear interpolation without antialiasing, which makes their borders soft. A mask that becomes empty stays a
    segment.

    Args:
        batch_data_samples: mmdet's, with ``gt_instances.masks`` and ``.labels`` and, for a model with stuff,
            ``gt_sem_seg``.
        size: Height and width h, w of the masks.
        num_things_classes: T; classes 0 .. T - 1 are things.
        num_stuff_classes: S; classes T .. T + S - 1 are stuff.
    """
    padded = batch_data_samples[0].batch_input_shape
    masks = torch.cat([_soften(_object_masks(sample, padded), size) for sample in batch_data_samples])
    labels = [sample.gt_instances.labels for sample in batch_data_samples]
    images = _image_indices(labels)
    things = torch.cat(labels)
    num_objects = [len(each) for each in labels]
    _check_classes('gt_instances.labels', things, images, num_things_classes, batch_data_samples)
    if not num_stuff_classes:
        return SegmentTargets(masks, things, images, num_objects, None)

    semantic = torch.stack([_semantic_map(sample, padded) for sample in batch_data_samples])  # B, H, W
    present = [each.unique() for each in semantic]
    present = [each[each != UNLABELLED] for each in present]
    classes, class_images = torch.cat(present), _image_indices(present)
    _check_classes('gt_sem_seg', classes, class_images, num_things_classes + num_stuff_classes, batch_data_samples)
    is_stuff = classes >= num_things_classes
    stuff, stuff_images = classes[is_stuff], class_images[is_stuff]
    semantic = semantic.short()  # a quarter of the memory
    stuff_masks = _soften(semantic[stuff_images] == stuff.short()[:, None, None], size)
    return SegmentTargets(torch.cat([masks, stuff_masks]), torch.cat([things, stuff]),
                          torch.cat([images, stuff_images]), num_objects, _soften(semantic == UNLABELLED, size))


def assign_stuff_kernels(targets: SegmentTargets, num_things_classes: int, num_kernels: int) -> Assignment:
    """Assign stuff of class T + j to kernel ``num_kernels`` + j, the j-th after the instance kernels."""
    segments = torch.arange(sum(targets.num_objects), len(targets.labels), device=targets.labels.device)
    kernels = num_kernels + targets.labels[segments] - num_things_classes
    return Assignment(targets.images[segments], kernels, segments)


def rank_target(assignment: Assignment, targets: SegmentTargets) -> Tensor:
    """Kernel of each pixel, (B, h, w): the last one whose segment covers it; ``IGNORE_INDEX`` where none does."""
    kernel = _topmost(targets.masks[assignment.segments], assignment.images, assignment.kernels,
                      len(targets.num_objects))
    return kernel.masked_fill_(kernel < 0, IGNORE_INDEX)


def semantic_target(assignment: Assignment, targets: SegmentTargets, num_classes: int, ignore_void: bool) -> Tensor:
    """Class of each pixel, (B, h, w): stuff, and over it the matched objects in the order of their kernels.

    Pixels that no segment covers are ``num_classes``, or ``IGNORE_INDEX`` if unlabelled and ``ignore_void``.
    """
    first_stuff = sum(targets.num_objects)
    stuff = torch.arange(first_stuff, len(targets.labels), device=assignment.segments.device)
    segments = torch.cat([stuff, assignment.segments])
    labels = targets.labels[segments]
    # Stuff segments overlap at their soft borders only, where the higher class wins.
    order = torch.cat([labels[:len(stuff)], num_classes + assignment.kernels])
    # The label is encoded in the order, so that the maximum yields it.
    top = _topmost(targets.masks[segments], targets.images[segments], order * num_classes + labels,
                   len(targets.num_objects))
    target = torch.where(top < 0, num_classes, top % num_classes)
    if ignore_void and targets.unlabelled is not None:
        target[(top < 0) & (targets.unlabelled > 0)] = IGNORE_INDEX
    return target


def _topmost(masks: Tensor, images: Tensor, order: Tensor, batch: int) -> Tensor:
    """Highest ``order`` among the masks that cover a pixel, (B, h, w); -1 where none does."""
    values = torch.where(masks > 0, order[:, None, None], -1)
    top = torch.full((batch, *masks.shape[1:]), -1, dtype=order.dtype, device=masks.device)
    return top.scatter_reduce_(0, images[:, None, None].expand_as(values), values, 'amax')


def _image_indices(values: list[Tensor]) -> Tensor:
    """Index of the image that each value belongs to."""
    return torch.cat([torch.full_like(each, image) for image, each in enumerate(values)])


def _object_masks(sample: DetDataSample, padded: tuple[int, int]) -> Tensor:
    """Padded masks of the objects of an image, (G_i, H, W) of bool."""
    instances = sample.gt_instances
    if 'masks' not in instances:
        raise ValueError(f'gt_instances.masks is missing in {image_name(sample)}: load annotations with with_mask=True')
    masks = instances.masks
    masks = masks if isinstance(masks, Tensor) else masks.to_tensor(torch.uint8, instances.labels.device)
    return _pad(masks, padded, 0) != 0  # some data sets use 255


def _semantic_map(sample: DetDataSample, padded: tuple[int, int]) -> Tensor:
    """Padded semantic map of an image, (H, W)."""
    if 'gt_sem_seg' not in sample:
        raise ValueError(f'gt_sem_seg is missing in {image_name(sample)}: a model with stuff classes trains on '
                         'LoadPanopticAnnotations(with_seg=True)')
    return _pad(sample.gt_sem_seg.sem_seg.squeeze(0), padded, UNLABELLED)


def _pad(maps: Tensor, size: tuple[int, int], value: int) -> Tensor:
    """Pad (..., h, w) maps right and bottom."""
    return F.pad(maps, (0, size[1] - maps.shape[-1], 0, size[0] - maps.shape[-2]), value=value)


def _soften(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear interpolation of (G, H, W) masks of bool to (G, h, w)."""
    if tuple(masks.shape[1:]) == (4 * size[0], 4 * size[1]):
        # This is the mean of the central 2 x 2 pixels of each 4 x 4 block, without a full-size map of floats.
        return torch.stack([masks[:, i::4, j::4] for i in (1, 2) for j in (1, 2)]).sum(dim=0, dtype=torch.float) / 4
    return resize(masks[:, None].float(), size)[:, 0]


def _check_classes(field: str, labels: Tensor, images: Tensor, limit: int, samples: SampleList) -> None:
    wrong = (labels < 0) | (labels >= limit)
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise ValueError(f'{field} must be 0 .. {limit - 1}, got {int(labels[first])} in '
                         f'{image_name(samples[int(images[first])])}: do the classes of data set and model agree?')
