"""Changes to parts of the hosts and of torch whose sizes would become constants when they are traced."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from torch import Tensor, nn

__all__ = ['fix_padding', 'fix_pooling', 'fix_upsampling']


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


def fix_pooling(model: nn.Module) -> None:
    """Let adaptive average pooling be two products of matrices: its windows would become constants."""
    for part in model.modules():
        if isinstance(part, nn.AdaptiveAvgPool2d):
            given: Any = part.output_size
            size = given if isinstance(given, tuple) else (given, given)
            if None not in size:
                part.forward = partial(_pooled, size)  # type: ignore[method-assign]


def _pooled(size: tuple[int, int], maps: Tensor) -> Tensor:
    rows, columns = (_windows(number, length) for number, length in zip(size, maps.shape[-2:], strict=True))
    return rows @ maps @ columns.T


def _windows(number: int, length: int) -> Tensor:
    """Matrix (number, length) that averages as ``AdaptiveAvgPool2d``, whose windows may overlap."""
    index = torch.arange(number)[:, None]
    first, end = index * length // number, ((index + 1) * length + number - 1) // number
    places = torch.arange(length)
    return ((places >= first) & (places < end)) / (end - first).float()


def _padded_convolution(conv: nn.Conv2d, maps: Tensor) -> Tensor:
    (high, wide), (down, right) = conv.kernel_size, conv.stride
    rows, columns = (max((size - 1) * dilation + 1 - stride, 0) for size, dilation, stride in (
        (high, conv.dilation[0], down), (wide, conv.dilation[1], right)))
    maps = F.pad(maps, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
    return F.conv2d(maps, conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)
