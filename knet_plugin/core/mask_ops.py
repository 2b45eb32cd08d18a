"""The two places where kernels and pixels meet: Eq. 1 (kernels make masks) and Eq. 3 (masks gather features)."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ['convolve', 'group_features', 'resize']

_SCALE = 2.**-10


def group_features(masks: Tensor, features: Tensor) -> Tensor:
    """Eq. 3, ``F^K = sum_uv M(u, v) F(u, v)``: (B, N, H, W) weights and (B, C, H, W) features to (B, N, C).

    The result is at least float32: a sum over a large map leaves the range of float16. Within a float16 product the
    weights are scaled by a power of two, which is exact.
    """
    grouped = torch.einsum('bnhw,bchw->bnc', masks * _SCALE, features)
    return grouped.to(torch.promote_types(grouped.dtype, torch.float32)) / _SCALE


def convolve(kernels: Tensor, features: Tensor) -> Tensor:
    """Eq. 1, ``M = K * F``: every image is convolved with its own kernels, zero padded to keep its size.

    Args:
        kernels: (B, N, C, K, K), K odd.
        features: (B, C, H, W).

    Returns:
        Mask logits, (B, N, H, W).
    """
    batch, num_kernels, channels, size, _ = kernels.shape
    if size == 1:
        return torch.einsum('bnc,bchw->bnhw', kernels.flatten(2), features)
    if batch == 0:
        return features.new_zeros(0, num_kernels, *features.shape[-2:])
    # One grouped convolution for the batch: image b is group b.
    masks = F.conv2d(features.reshape(1, batch * channels, *features.shape[-2:]),
                     kernels.reshape(batch * num_kernels, channels, size, size), padding=size // 2, groups=batch)
    return masks.reshape(batch, num_kernels, *features.shape[-2:])


def resize(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Bring (B, N, h, w) to ``size`` = (H, W) by bilinear interpolation; untouched where it has that size."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, tuple(size), mode='bilinear', align_corners=False)
