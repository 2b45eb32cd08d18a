"""The two places where kernels and pixels meet: Eq. 1 (kernels make masks) and Eq. 3 (masks gather features)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from knet_plugin.compat import release

__all__ = ['autocasts', 'convolve', 'group_features', 'resize']

_ASKS_BY_DEVICE = release(torch.__version__) >= (2, 4)


def group_features(masks: Tensor, features: Tensor) -> Tensor:
    """Eq. 3, ``F^K = sum_uv M(u, v) F(u, v)``: (B, N, H, W) weights and (B, C, H, W) features to (B, N, C).

    The result is at least float32, as a sum over a large map leaves the range of float16, which the gradients of such a
    product do not fit either: so float16 is left before it, also under autocast. bfloat16, which has float32's range,
    stays, and autocast brings float32 to it.
    """
    dtype = features.dtype
    if dtype == torch.float32 and autocasts(features.device.type):
        dtype = _autocast_type(features.device.type)
    dtype = dtype if dtype == torch.bfloat16 else torch.promote_types(dtype, torch.float32)
    with torch.autocast(features.device.type, enabled=False):
        grouped = torch.einsum('bnhw,bchw->bnc', masks.to(dtype), features.to(dtype))
    return grouped.to(torch.promote_types(dtype, torch.float32))


def convolve(kernels: Tensor, features: Tensor, bias: Tensor | None = None) -> Tensor:
    """Eq. 1, ``M = K * F``: every image is convolved with its own kernels, zero padded to keep its size.

    Args:
        kernels: (B, N, C, K, K), K odd.
        features: (B, C, H, W).
        bias: Added to the masks, (B, N).

    Returns:
        Mask logits, (B, N, H, W).
    """
    batch, num_kernels, channels, size, _ = kernels.shape
    if size == 1:
        flat = features.flatten(2)
        masks = kernels.flatten(2) @ flat if bias is None else torch.baddbmm(bias[..., None], kernels.flatten(2), flat)
        return masks.unflatten(2, features.shape[-2:])
    if batch == 0:
        # Nothing, but connected to what it would be made of, so that a loss of it has its (zero) gradients.
        masks = kernels.sum(dim=(2, 3, 4))[..., None, None] * features.sum(dim=1, keepdim=True)
        return masks if bias is None else masks + bias[..., None, None]
    # One grouped convolution for the batch: image b is group b.
    masks = F.conv2d(features.reshape(1, batch * channels, *features.shape[-2:]),
                     kernels.reshape(batch * num_kernels, channels, size, size),
                     None if bias is None else bias.flatten(), padding=size // 2, groups=batch)
    return masks.reshape(batch, num_kernels, *features.shape[-2:])


def autocasts(device_type: str) -> bool:
    """Whether automatic mixed precision is on."""
    if not _ASKS_BY_DEVICE:
        return torch.is_autocast_cpu_enabled() if device_type == 'cpu' else torch.is_autocast_enabled()
    return torch.is_autocast_enabled(device_type)


def _autocast_type(device_type: str) -> torch.dtype:
    """What automatic mixed precision makes of float32."""
    if not _ASKS_BY_DEVICE:
        return torch.get_autocast_cpu_dtype() if device_type == 'cpu' else torch.get_autocast_gpu_dtype()
    return torch.get_autocast_dtype(device_type)


def resize(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Bring (B, N, h, w) to ``size`` = (H, W) by bilinear interpolation; untouched where it has that size."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, tuple(size), mode='bilinear', align_corners=False)
