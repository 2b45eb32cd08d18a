"""The exported computation: from 8-bit images to logits, and to the semantic map."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from torch import Tensor, nn

from knet_plugin.inference.optimize import raw_outputs

__all__ = ['GROUP', 'LARGEST_STRIDE', 'LogitsGraph', 'SemanticGraph', 'fix_padding', 'fix_upsampling',
           'highest', 'sample']

Size = tuple[int, int]
GROUP = 16  # masks that are resized at once, to bound the memory
LARGEST_STRIDE = 32  # of backbones


def fix_padding(model: nn.Module) -> None:
    """Let convolutions with "same" padding, as in EfficientNet, pad as for sizes that their stride divides.

    The padding that mmcv computes from the size of each map nests maxima and minima, which ``torch.export`` cannot
    simplify: for a free size it does not end.
    """
    for part in model.modules():
        if isinstance(part, Conv2dAdaptivePadding):
            part.forward = partial(_padded_convolution, part)


def fix_upsampling(model: nn.Module) -> None:
    """Let mmseg's ``Upsample`` multiply sizes by whole factors as integers: rounded sizes would become constants."""
    for part in model.modules():
        if type(part).__module__ == 'mmseg.models.utils.wrappers' and not part.size:
            scale: Any = part.scale_factor
            factors = [float(each) for each in (scale if isinstance(scale, tuple) else (scale, scale))]
            if all(each.is_integer() for each in factors):
                part.forward = partial(_upsampled, part, [int(each) for each in factors])


def _upsampled(part: Any, factors: list[int], maps: Tensor) -> Tensor:
    size = [length * factor for length, factor in zip(maps.shape[-2:], factors, strict=True)]
    return F.interpolate(maps, size, mode=part.mode, align_corners=part.align_corners)


def _padded_convolution(conv: nn.Conv2d, maps: Tensor) -> Tensor:
    (high, wide), (down, right) = conv.kernel_size, conv.stride
    rows, columns = (max((size - 1) * dilation + 1 - stride, 0) for size, dilation, stride in (
        (high, conv.dilation[0], down), (wide, conv.dilation[1], right)))
    maps = F.pad(maps, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
    return F.conv2d(maps, conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)


class LogitsGraph(nn.Module):
    """Normalises and pads images as the model's data preprocessor does, and returns ``raw_outputs``.

    Args:
        model: A ``KNet``, or a segmentor of mmseg.
    """

    model: Any

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        preprocessor: Any = model.data_preprocessor
        # mmdet and mmseg name it differently. The hosts read BGR, and exported models get RGB.
        to_rgb = getattr(preprocessor, '_channel_conversion', getattr(preprocessor, 'channel_conversion', False))
        self.flips = not to_rgb
        self.normalises = preprocessor._enable_normalize
        if hasattr(preprocessor, 'test_cfg'):  # mmseg's, whose other settings are for training
            self.divisor = (preprocessor.test_cfg or {}).get('size_divisor') or 1
        else:
            self.divisor = preprocessor.pad_size_divisor
        self.fill = getattr(preprocessor, 'pad_val', getattr(preprocessor, 'pad_value', 0))
        fix_upsampling(self.model)
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

    def forward(self, image: Tensor, rows: Tensor, columns: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """``semantic``, the classes (H, W) int32 of an image (1, h, w, 3) uint8 RGB at rows (H,) and columns (W,)."""
        logits = raw_outputs(self.model, self.preprocess(image))['seg_logits'][0]
        size = image.shape[1], image.shape[2]
        if logits.shape[0] == 1:
            threshold = self.model.decode_head.threshold
            return dict(semantic=(sample(logits, size, rows, columns)[0].sigmoid() > threshold).int())
        _, labels = highest(sample(each, size, rows, columns) for each in logits.split(GROUP))
        return dict(semantic=labels.int())


def sample(maps: Tensor, size: Size, rows: Tensor, columns: Tensor) -> Tensor:
    """Values of maps (n, h, w) between their pixels, (n, H, W), by bilinear interpolation.

    The image, of this size, is in the upper left corner of the maps. To cut it out would fix whether there is padding.
    """
    for dim, length, places in ((1, size[0], rows[:, None]), (2, size[1], columns)):
        low = places.floor().long()
        high = (low + 1).clamp(max=length - 1)
        maps = torch.lerp(maps.index_select(dim, low.flatten()), maps.index_select(dim, high.flatten()), places - low)
    return maps


def highest(groups: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    """Highest value of all maps at each pixel, and the number of the map, both (H, W), from groups of (n, H, W)."""
    best, number = next(groups).max(dim=0)
    start = GROUP
    for group in groups:
        values, index = group.max(dim=0)
        better = values > best
        best, number = torch.where(better, values, best), torch.where(better, index + start, number)
        start += GROUP
    return best, number
