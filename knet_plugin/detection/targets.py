"""What the kernels are to learn: the segments of a batch, and which kernel owns which. All of it is sparse."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample, SampleList
from torch import Tensor

from knet_plugin.engine.finite_inputs import image_name

__all__ = ['IGNORED', 'Assignment', 'SegmentTargets', 'semantic_target', 'rank_target', 'segment_targets',
           'assign_stuff']

VOID = 255
"""Value of unlabelled pixels in a semantic map, mmdet's."""
MANY = 1 << 16
"""Values of semantic maps from which on sorting the pixels is cheaper than counting them."""
IGNORED = -100
"""Value of pixels that a loss leaves out, torch's. (255 could be a kernel.)"""


class SegmentTargets(NamedTuple):
    """All G segments of a batch at the masks' size: the objects of image 0, 1, ..., then the stuff segments."""

    masks: Tensor
    """Soft masks, (G, h, w), values in [0, 1]."""
    labels: Tensor
    """Classes, (G,)."""
    images: Tensor
    """Index of each segment's image, (G,)."""
    num_objects: list[int]
    """Objects of each image, B numbers."""
    void: Tensor | None
    """Unlabelled share of each pixel, (B, h, w) in [0, 1]; None where there is no semantic map."""

    def objects_of(self, image: int) -> slice:
        """Rows of the objects of an image."""
        start = sum(self.num_objects[:image])
        return slice(start, start + self.num_objects[image])


class Assignment(NamedTuple):
    """P pairs of a kernel and the segment that it owns. Kernels without segment do not appear."""

    images: Tensor
    """Image of each pair, (P,)."""
    kernels: Tensor
    """Kernel of each pair, 0 .. N - 1, (P,)."""
    segments: Tensor
    """Row of each pair's segment in ``SegmentTargets``, (P,)."""

    def __add__(self, other: 'Assignment') -> 'Assignment':  # type: ignore[override]
        """The pairs of both."""
        return Assignment(*(torch.cat(pair) for pair in zip(self, other, strict=True)))


def segment_targets(batch_data_samples: SampleList, size: tuple[int, int], num_things_classes: int,
                    num_stuff_classes: int) -> SegmentTargets:
    """Bring the ground truth of a batch to the size of the masks.

    Masks and semantic maps are padded right and bottom (with 0 and 255) to the size of the padded batch, and brought
    to ``size`` by bilinear interpolation without antialiasing, so they turn soft at their borders. A mask that vanishes
    thereby stays a segment.

    Args:
        batch_data_samples: mmdet's, with ``gt_instances.masks`` and ``.labels`` and, where there is stuff,
            ``gt_sem_seg``, all at most as large as ``batch_input_shape``.
        size: Height and width h, w of the masks.
        num_things_classes: Classes 0 .. T - 1 are things.
        num_stuff_classes: Classes T .. T + S - 1 are stuff.

    Returns:
        The segments of the batch.

    Raises:
        ValueError: If a field is missing, larger than the padded batch, or has a class that is none; the message names
            field, value and file.
    """
    padded = batch_data_samples[0].batch_input_shape
    device = batch_data_samples[0].gt_instances.labels.device
    masks = torch.cat([_object_masks(sample, padded, size) for sample in batch_data_samples])
    labels = torch.cat([sample.gt_instances.labels for sample in batch_data_samples])
    num_objects = [len(sample.gt_instances.labels) for sample in batch_data_samples]
    images = torch.arange(len(num_objects), device=device).repeat_interleave(
        torch.tensor(num_objects, device=device), output_size=len(labels))
    _check_classes('gt_instances.labels', labels, images, num_things_classes, batch_data_samples)
    if not num_stuff_classes:
        return SegmentTargets(masks, labels, images, num_objects, None)

    semantic = torch.stack([_semantic_map(sample, padded) for sample in batch_data_samples])  # B, H, W
    known = _classes_present(semantic)
    known = known[known[:, 1] != VOID]
    _check_classes('gt_sem_seg', known[:, 1], known[:, 0], num_things_classes + num_stuff_classes, batch_data_samples)
    stuff_images, stuff_labels = known[known[:, 1] >= num_things_classes].unbind(dim=1)
    patches = _Shrunk(semantic, size)
    return SegmentTargets(
        torch.cat([masks, patches.equal_to(stuff_images, stuff_labels)]), torch.cat([labels, stuff_labels]),
        torch.cat([images, stuff_images]), num_objects, patches.equal_to(slice(None), VOID))


def assign_stuff(targets: SegmentTargets, num_things_classes: int, num_kernels: int) -> Assignment:
    """Stuff is never matched: class T + j belongs to kernel ``num_kernels`` + j, after the instance kernels."""
    segments = torch.arange(sum(targets.num_objects), len(targets.labels), device=targets.labels.device)
    kernels = num_kernels + targets.labels[segments] - num_things_classes
    return Assignment(targets.images[segments], kernels, segments)


def rank_target(owned: Assignment, targets: SegmentTargets) -> Tensor:
    """Which kernel owns each pixel: the last one, in kernel order, whose segment touches it.

    Returns:
        (B, h, w) kernel indices, ``IGNORED`` where no segment is.
    """
    owner = _topmost(targets.masks[owned.segments], owned.images, owned.kernels, len(targets.num_objects))
    return owner.masked_fill_(owner < 0, IGNORED)


def semantic_target(owned: Assignment, targets: SegmentTargets, num_classes: int, ignore_void: bool) -> Tensor:
    """Dense labels: stuff, and over it the matched objects in kernel order, each wherever it touches a pixel.

    Args:
        owned: Pairs of the instance kernels.
        targets: The segments of the batch.
        num_classes: Label of pixels that no segment touches.
        ignore_void: Whether unlabelled pixels that no segment touches are ``IGNORED`` instead.

    Returns:
        (B, h, w) labels.
    """
    first_stuff = sum(targets.num_objects)
    stuff = torch.arange(first_stuff, len(targets.labels), device=owned.segments.device)
    segments = torch.cat([stuff, owned.segments])
    labels = targets.labels[segments]
    # Stuff segments are disjoint but for their soft borders, where the higher class wins. The label rides along.
    order = torch.cat([labels[:len(stuff)], num_classes + owned.kernels])
    top = _topmost(targets.masks[segments], targets.images[segments], order * num_classes + labels,
                   len(targets.num_objects))
    target = torch.where(top < 0, num_classes, top % num_classes)
    if ignore_void and targets.void is not None:
        target[(top < 0) & (targets.void > 0)] = IGNORED
    return target


def _topmost(masks: Tensor, images: Tensor, order: Tensor, batch: int) -> Tensor:
    """Highest ``order`` among the masks that touch a pixel, (B, h, w); -1 where none does."""
    values = torch.where(masks > 0, order[:, None, None], -1)
    top = torch.full((batch, *masks.shape[1:]), -1, dtype=order.dtype, device=masks.device)
    return top.scatter_reduce_(0, images[:, None, None].expand_as(values), values, 'amax')


def _object_masks(sample: DetDataSample, padded: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Masks of one image's objects, (G_i, h, w)."""
    instances = sample.gt_instances
    if 'masks' not in instances:
        raise ValueError(f'gt_instances.masks is missing in {image_name(sample)}: load annotations with with_mask=True')
    masks = instances.masks
    masks = masks if isinstance(masks, Tensor) else masks.to_tensor(torch.uint8, instances.labels.device)
    masks = _pad('gt_instances.masks', masks, padded, 0, sample)
    return _Shrunk(masks, size).not_zero()  # not 1: some write 255


def _semantic_map(sample: DetDataSample, padded: tuple[int, int]) -> Tensor:
    """Padded semantic map of one image, (H, W)."""
    if 'gt_sem_seg' not in sample:
        raise ValueError(f'gt_sem_seg is missing in {image_name(sample)}: a model with stuff classes trains on '
                         'LoadPanopticAnnotations(with_seg=True)')
    return _pad('gt_sem_seg', sample.gt_sem_seg.sem_seg.squeeze(0), padded, VOID, sample)


def _pad(field: str, maps: Tensor, padded: tuple[int, int], value: int, sample: DetDataSample) -> Tensor:
    height, width = maps.shape[-2:]
    if height > padded[0] or width > padded[1]:
        raise ValueError(f'{field} is {height} x {width}, larger than the padded batch of {padded[0]} x {padded[1]}, '
                         f'in {image_name(sample)}')
    return F.pad(maps, (0, padded[1] - width, 0, padded[0] - height), value=value)


class _Shrunk:
    """Maps of integers, of which single values become soft masks of a smaller size."""

    def __init__(self, maps: Tensor, size: tuple[int, int]) -> None:
        self.maps = maps
        self.size = size
        height, width = maps.shape[-2:]
        # At a quarter of the size, bilinear interpolation is the mean of the four central pixels of each 4 x 4 block:
        # the other twelve need not even be looked at.
        self.central = (height, width) == (4 * size[0], 4 * size[1])
        if self.central:
            self.maps = maps.unflatten(-1, (-1, 4))[..., 1:3].unflatten(-3, (-1, 4))[..., 1:3, :, :]

    def equal_to(self, rows: Tensor | slice, values: Tensor | int) -> Tensor:
        """Soft masks of where ``maps[rows]`` is ``values``, (len(rows), h, w)."""
        maps = self.maps[rows]
        if isinstance(values, Tensor):
            values = values.view(-1, *[1] * (maps.dim() - 1))
        return self._soften(maps == values)

    def not_zero(self) -> Tensor:
        """Soft masks of where each map is not 0, (len(maps), h, w)."""
        return self._soften(self.maps != 0)

    def _soften(self, masks: Tensor) -> Tensor:
        if self.central:
            return masks.sum(dim=(-3, -1), dtype=torch.float32) / 4
        if not len(masks):
            return masks.new_zeros((0, *self.size), dtype=torch.float32)
        return F.interpolate(masks[:, None].float(), self.size, mode='bilinear', align_corners=False)[:, 0]


def _classes_present(semantic: Tensor) -> Tensor:
    """(image, class) pairs that occur in (B, H, W) maps, sorted."""
    lowest = min(int(semantic.min()), 0)
    width = int(semantic.max()) - lowest + 1
    offsets = width * torch.arange(len(semantic), device=semantic.device)[:, None, None]
    places = (semantic.long() - lowest + offsets).flatten()
    # Maps that are none of classes may hold any number: too many to count each.
    present = places.unique() if width > MANY else torch.bincount(places).nonzero()[:, 0]
    return torch.stack([present // width, present % width + lowest], dim=1)


def _check_classes(field: str, labels: Tensor, images: Tensor, limit: int, samples: SampleList) -> None:
    wrong = (labels < 0) | (labels >= limit)
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise ValueError(f'{field} must be 0 .. {limit - 1}, got {int(labels[first])} in '
                         f'{image_name(samples[int(images[first])])}: do the classes of data set and model agree?')
