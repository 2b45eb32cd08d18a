"""The exported computation: from 8-bit images to logits, and to the semantic map."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from torch import Tensor, nn

from knet_plugin.export.fixes import fix_padding, fix_pooling, fix_upsampling
from knet_plugin.inference.optimize import raw_outputs

__all__ = ['LARGEST_STRIDE', 'LogitsGraph', 'Resize', 'SemanticGraph', 'highest', 'in_groups', 'turns_to_rgb']

Tensors = tuple[Tensor, ...]
Find = Callable[..., tuple[Tensors, Tensors]]
GROUP = 16  # masks that are resized at once, to bound the memory
LARGEST_STRIDE = 32  # of backbones


def turns_to_rgb(preprocessor: Any) -> bool:
    """Whether a data preprocessor reverses the channels, which the hosts read as BGR."""
    # mmdet and mmseg name it differently.
    return bool(getattr(preprocessor, '_channel_conversion', getattr(preprocessor, 'channel_conversion', False)))


class LogitsGraph(nn.Module):
    """Normalises and pads images as the model's data preprocessor does, and returns ``raw_outputs``.

    Args:
        model: A ``KNet``, or a segmentor of mmseg.
    """

    model: Any

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(False)  # the exporter would differentiate loops
        preprocessor: Any = model.data_preprocessor
        self.flips = not turns_to_rgb(preprocessor)  # exported models get RGB
        self.normalises = preprocessor._enable_normalize
        if hasattr(preprocessor, 'test_cfg'):  # mmseg's, whose other settings are for training
            self.divisor = (preprocessor.test_cfg or {}).get('size_divisor') or 1
        else:
            self.divisor = preprocessor.pad_size_divisor
        self.fill = getattr(preprocessor, 'pad_val', getattr(preprocessor, 'pad_value', 0))
        fix_upsampling(self.model)
        fix_pooling(self.model)
        if self.divisor % LARGEST_STRIDE == 0:
            fix_padding(self.model)

    def has_free_padding(self) -> bool:
        """Whether a convolution pads by the size of its map, so that the size of the image must be fixed."""
        return self.divisor % LARGEST_STRIDE != 0 and any(
            isinstance(part, Conv2dAdaptivePadding) for part in self.model.modules())

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(B, H, W, 3) uint8 RGB to logits of the padded image."""
        return raw_outputs(self.model, self.preprocess(image))

    def preprocess(self, image: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 RGB to the model's input, (B, 3, H', W')."""
        pixels = image.permute(0, 3, 1, 2).float()
        if self.flips:
            pixels = pixels.flip(1)
        if self.normalises:
            pixels = (pixels - self.model.data_preprocessor.mean) / self.model.data_preprocessor.std
        height, width = image.shape[1:3]
        return F.pad(pixels, (0, -width % self.divisor, 0, -height % self.divisor), value=self.fill)


class SemanticGraph(LogitsGraph):
    """Adds the post-processing of mmseg, for one image.

    Logits are resized as in prediction: to the padded input, and then to the result, whose pixels lie at ``rows`` and
    ``columns`` of the input. So the size of the result is free, and no value decides a shape.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        from mmseg.models.decode_heads.decode_head import BaseDecodeHead  # here, because detectors work without mmseg

        for head in self.model.decode_head.modules():
            # All classes at the size of the input would take most of the memory. Few heads resize differently.
            if getattr(type(head), 'predict_by_feat', None) is BaseDecodeHead.predict_by_feat:
                head.predict_by_feat = _small_logits

    def forward(self, image: Tensor, rows: Tensor, columns: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """``semantic``, the classes (H, W) int32 of an image (1, h, w, 3) uint8 RGB at rows (H,) and columns (W,)."""
        inputs = self.preprocess(image)
        logits = raw_outputs(self.model, inputs)['seg_logits'][0]
        resize = Resize(logits, inputs, image, rows, columns, self.model.align_corners)
        if logits.shape[0] == 1:
            threshold = self.model.decode_head.threshold
            return dict(semantic=(resize(logits)[0].sigmoid() > threshold).int())
        return dict(semantic=highest(logits, resize)[0].int())


def _small_logits(logits: Tensor, metas: Any) -> Tensor:
    return logits


class Resize:
    """Both bilinear resizes of prediction, as one matrix for each axis.

    Args:
        maps: What is resized, (n, h, w).
        inputs: The padded input, (1, 3, H', W'), to whose size the first resize goes.
        image: The image in its upper left corner, (1, H'', W'', 3).
        rows: Where the rows of the result lie in the image, (H,).
        columns: The same for columns, (W,).
        align_corners: Of the first resize.

    Attributes:
        rows: The matrix (H, h).
        columns: The matrix (w, W).
    """

    def __init__(self, maps: Tensor, inputs: Tensor, image: Tensor, rows: Tensor, columns: Tensor,
                 align_corners: bool = False) -> None:
        self.rows = _matrix(maps.shape[1], inputs.shape[2], image.shape[1], rows, align_corners).T.contiguous()
        self.columns = _matrix(maps.shape[2], inputs.shape[3], image.shape[2], columns, align_corners)

    def __call__(self, maps: Tensor) -> Tensor:
        """(n, h, w) to (n, H, W)."""
        return self.rows @ (maps @ self.columns)


def _matrix(length: int, padded: int, image: int, places: Tensor, align_corners: bool) -> Tensor:
    """What the resizes along an axis make of unit vectors, (length, places).

    To cut the image out of the padded input would fix whether there is padding.
    """
    index = torch.arange(length)
    units = (index[:, None] == index).float()
    units = F.interpolate(units[None], padded, mode='linear', align_corners=align_corners)[0]
    low = places.floor().long()
    high = (low + 1).clamp(max=image - 1)
    return torch.lerp(units[:, low], units[:, high], places - low)


def in_groups(maps: Tensor, resize: Resize, find: Find, start: Tensors = ()) -> tuple[Tensors, Tensors]:
    """Resize some maps after the other; engines would make all of them large at once if there was no loop.

    Args:
        maps: Small maps, (n, h, w).
        resize: Makes them large, (H, W).
        find: Takes a group of large maps, their numbers, and what it returned first for the group before. Returns new
            values of that, and what it finds of each map.
        start: What it takes for the first group.

    Returns:
        What ``find`` returned first for the last group, and what it found of all maps, stacked.
    """
    from torch._higher_order_ops.scan import scan  # here, because an older torch has none and gets a clear error

    number = maps.shape[0]
    # The last group is filled with copies of the last map.
    numbers = torch.arange((number + GROUP - 1) // GROUP * GROUP).clamp(max=number - 1).unflatten(0, (-1, GROUP))

    def step(carry: Tensors, group: Tensors) -> tuple[Tensors, Tensors]:
        rows, columns, *others = carry  # OpenVINO takes nothing in a loop that is not handed to it
        numbers, small = group
        carry, found = find(rows @ (small @ columns), numbers, *others)
        return (rows.clone(), columns.clone(), *carry), found

    (_, _, *last), found = scan(step, (resize.rows, resize.columns, *start), (numbers, maps[numbers]))
    return tuple(last), tuple(each.flatten(0, 1)[:number] for each in found)


def highest(maps: Tensor, resize: Resize, factors: Tensor | None = None,
            measure: Callable[[Tensor], Tensors] | None = None) -> tuple[Tensor, Tensors]:
    """Which map is the highest at each pixel of the result.

    Args:
        maps: Small maps, (n, h, w).
        resize: Makes them large, (n, H, W).
        factors: Factor of each map, (n,).
        measure: What else is found of each large map.

    Returns:
        Numbers of the maps, (H, W), the lowest in a tie; and what ``measure`` found of all maps.
    """
    def find(large: Tensor, numbers: Tensor, best: Tensor, owner: Tensor, *others: Tensor) -> tuple[Tensors, Tensors]:
        found = measure(large) if measure else ()
        if others:
            large = large * others[0][numbers][:, None, None]
        values, winner = large.max(dim=0)
        better = values > best
        owner = torch.where(better, winner + numbers[:1, None], owner)
        return (torch.where(better, values, best), owner, *(each.clone() for each in others)), found

    size = resize.rows.shape[0], resize.columns.shape[1]
    start = torch.full(size, -torch.inf), torch.zeros(size, dtype=torch.long)
    (_, owner, *_), found = in_groups(maps, resize, find, start if factors is None else (*start, factors))
    return owner, found
