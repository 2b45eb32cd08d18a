"""A 3 x 3 convolution of a map that is resized first, without making the resized map."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from knet_plugin.core.mask_ops import autocasts, resize

__all__ = ['resize_and_convolve']


def resize_and_convolve(conv: nn.Conv2d, maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """``conv(resize(maps, size))`` of a 3 x 3 convolution that keeps the size.

    Both are linear, and a tap of the convolution, a C x C matrix, does not mix pixels: it may as well be applied before
    the resize. To twice the size that is a quarter of the products; what is left to do is one matrix for each axis.
    Exact but for rounding (4e-7 of the largest value in float32).

    It is done on the CPU, where it is known to be faster (see docs/benchmarks.md), if it spares enough products, and
    without gradients, for which the outputs of the taps would have to be kept. It is not done under autocast, which
    would round more often, nor where a hook wants to see the convolution.

    Args:
        conv: 3 x 3, stride 1, padding 1, one group.
        maps: (B, C, h, w).
        size: Height H and width W.

    Returns:
        (B, C', H, W).
    """
    (height, width), (new_height, new_width) = maps.shape[-2:], size
    # Per output channel: the taps, the width, the height; against the taps at the new size.
    products = height * (9 * width * (conv.in_channels + new_width) + 3 * new_height * new_width)
    spares = products < 0.6 * 9 * conv.in_channels * new_height * new_width
    if (not spares or not maps.is_cpu or torch.is_grad_enabled() or autocasts('cpu') or conv._forward_hooks
            or conv._forward_pre_hooks):
        return conv(resize(maps, size))
    channels = conv.out_channels
    taps = conv.weight.permute(3, 2, 0, 1).flatten(0, 2)  # 3 columns x 3 rows x C', C
    outputs = F.linear(maps.permute(0, 2, 3, 1), taps)  # B, h, w, 9 C'
    outputs = _resize_and_shift(width, new_width, outputs) @ outputs.unflatten(3, (3, -1)).flatten(2, 3)
    outputs = outputs.unflatten(3, (3, channels)).transpose(2, 3).flatten(3).flatten(1, 2)  # B, 3 h, W C'
    result = (_resize_and_shift(height, new_height, outputs) @ outputs).unflatten(2, (new_width, channels))
    return (result if conv.bias is None else result + conv.bias).permute(0, 3, 1, 2)


def _resize_and_shift(old: int, new: int, like: Tensor) -> Tensor:
    """One axis: the matrix (new, old * 3) that resizes the outputs of the three taps, shifts them to where they belong,
    with zeros from beyond the border, and adds them up.
    """
    units = torch.eye(old, dtype=torch.promote_types(like.dtype, torch.float32))
    maps = F.interpolate(units[None], new, mode='linear', align_corners=False)[0].T  # new, old
    padded = F.pad(maps, (0, 0, 1, 1))
    return torch.stack([padded[tap:tap + new] for tap in range(3)], dim=2).flatten(1).to(like)
