"""Where features meet masks (Eq. 3) and kernels (Eq. 1)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from knet_plugin.compat import release
from knet_plugin.core.activation_checkpointing import checkpointed

__all__ = ['FeatureMap', 'convolve', 'group_features', 'resize']

_AUTOCAST_BY_DEVICE = release(torch.__version__) >= (2, 4)


class FeatureMap:
    """The features of a stage: ``F``, or ``W F + b`` if the stage transforms them. It holds no parameters.

    Eq. 1 and Eq. 3 are linear in the features, so W and b are applied to kernels and group features (N x C values)
    instead of the map (C x H x W), which saves H * W * C^2 multiply-accumulates and a map in memory. Kernels beyond
    1 x 1 need the transformed map itself, because they pad it with zeros, not with b.

    Args:
        features: ``F``, (B, C, H, W).
        transform: 1 x 1 convolution with weight W and bias b. None: the features are used as they are.
    """

    def __init__(self, features: Tensor, transform: nn.Conv2d | None = None) -> None:
        self.features = features
        self.transform = transform

    def pool(self, mask_logits: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
        """Eq. 3 on the transformed features: ``sum_uv M (W F + b) = W (sum_uv M F) + b (sum_uv M)``.

        Args:
            mask_logits: (B, N, h, w), resized to H x W.
            activation: Maps the logits to the mask weights M.

        Returns:
            Group features ``F^K``, (B, N, C), at least float32.
        """

        def sums(mask_logits: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
            masks = activation(resize(mask_logits, features.shape[-2:]))  # M: B, N, H, W
            group = group_features(masks, features)
            return group, masks.sum(dim=(-2, -1), dtype=group.dtype)

        group, areas = checkpointed(sums, mask_logits, self.features)  # M is not kept for the backward pass
        if self.transform is None:
            return group
        weight, bias = (value.to(group.dtype) for value in self._weight_and_bias())
        with torch.autocast(group.device.type, enabled=False):
            return F.linear(group, weight) + areas[..., None] * bias

    def convolve(self, kernels: Tensor, stride: int = 1) -> Tensor:
        """Eq. 1 on the transformed features: ``k * (W F + b)``, which is ``(W^T k) F + k b`` for 1 x 1 kernels.

        (B, N, C, K, K) kernels yield (B, N, H, W) mask logits. They are computed at 1 / ``stride`` of that size.
        """
        height, width = self.features.shape[-2:]
        features = resize(self.features, (max(height // stride, 1), max(width // stride, 1)))
        bias = None
        if self.transform is not None and kernels.shape[-1] > 1:
            features = self.transform(features)
        elif self.transform is not None:
            weight, transform_bias = self._weight_and_bias()
            kernels = kernels.flatten(2)  # B, N, C
            kernels, bias = (kernels @ weight)[..., None, None], kernels @ transform_bias
        return resize(convolve(kernels, features, bias), (height, width))

    def _weight_and_bias(self) -> tuple[Tensor, Tensor]:
        """W, (C, C), and b, (C,)."""
        assert self.transform is not None and self.transform.bias is not None
        return self.transform.weight.flatten(1), self.transform.bias


def group_features(masks: Tensor, features: Tensor) -> Tensor:
    """Eq. 3, ``F^K = sum_uv M(u, v) F(u, v)``: (B, N, H, W) weights and (B, C, H, W) features to (B, N, C).

    Sums over a map exceed float16's range, so float16 inputs, and float32 inputs under float16 autocast, are multiplied
    and summed in float32. bfloat16 is used as usual. The result is at least float32.
    """
    device_type, dtype = features.device.type, features.dtype
    if dtype == torch.float32:
        dtype = _autocast_dtype(device_type) or dtype
    if dtype == torch.float16:
        dtype = torch.float32
    with torch.autocast(device_type, enabled=False):
        group = torch.einsum('bnhw,bchw->bnc', masks.to(dtype), features.to(dtype))
    return group.to(torch.promote_types(dtype, torch.float32))


def convolve(kernels: Tensor, features: Tensor, bias: Tensor | None = None) -> Tensor:
    """Eq. 1, ``M = K * F``: convolve each image with its own kernels, zero-padded to keep the size.

    (B, N, C, K, K) kernels, (B, C, H, W) features and (B, N) biases yield (B, N, H, W) mask logits.
    """
    batch, num_kernels, channels, size, _ = kernels.shape
    if size == 1:
        flat = features.flatten(2)
        masks = kernels.flatten(2) @ flat if bias is None else torch.baddbmm(bias[..., None], kernels.flatten(2), flat)
        return masks.unflatten(2, features.shape[-2:])
    # One grouped convolution for the batch: image b is group b.
    masks = F.conv2d(features.reshape(1, batch * channels, *features.shape[-2:]),
                     kernels.reshape(batch * num_kernels, channels, size, size),
                     None if bias is None else bias.flatten(), padding=size // 2, groups=batch)
    return masks.reshape(batch, num_kernels, *features.shape[-2:])


def resize(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Bilinear interpolation of (B, N, h, w) to ``size`` = (H, W); maps of that size are returned unchanged."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, tuple(size), mode='bilinear', align_corners=False)


def _autocast_dtype(device_type: str) -> torch.dtype | None:
    """The type that autocast uses for matrix products; None if it is off."""
    if _AUTOCAST_BY_DEVICE:
        return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else None
    if device_type == 'cpu':
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
    return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None
