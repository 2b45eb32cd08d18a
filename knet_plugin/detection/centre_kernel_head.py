"""Instance kernels from the centres of objects, in place of learned ones."""

from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import bias_init_with_prob
from torch import Tensor, nn

from knet_plugin.core.feature_map import convolve, resize
from knet_plugin.detection.criterion import mean_over_processes
from knet_plugin.detection.kernel_head import InstanceKernels, KernelHead
from knet_plugin.detection.targets import SegmentTargets
from knet_plugin.registry import MODELS

__all__ = ['CentreKernelHead', 'centre_target']

RADIUS = 0.15  # standard deviation of a centre's target, relative to the root of the object's area
LEAST_RADIUS = 1 / 3  # the same in pixels of the map
PEAK, OFFSET = 8., -6.  # of the first masks' logits: discs with a radius of about 4 pixels of the map
SLOPE = 10.  # taken from the logits of pixels that are no local maximum
LOWEST = 1e-3  # values of the target below are 0


@MODELS.register_module()
class CentreKernelHead(KernelHead):
    """Takes instance kernels from the pixels that look most like centres of objects; training learns to find them.

    ::

        x = conv(loc + seg);  c = conv_centre(x);  loc += P
        p_1 .. p_N = the pixels with the highest c - 10 [c is no maximum of its 3 x 3 pixels], over all classes
        a, s, b = conv_kernel(x(p_n));  K_0^n = a + s * P(p_n);  M_0^n = K_0^n * loc + b

    Choosing kernels by the certainty of pixels is MaskDINO's (arXiv 2206.02777), centres as their target CenterNet's
    (arXiv 1904.07850). P is an encoding of positions whose products P(p) P(q) decrease with the distance of two pixels,
    so from the first iteration each kernel has a mask of its own, a disc around its pixel. The class logits of all
    stages are those by which the pixels were chosen, without gradient, plus what the stage adds.

    Args:
        positions: Config of P, of C channels.
        loss_centre: Config of the loss of the centres' probabilities, called with their target.
        kwargs: Those of ``KernelHead``; ``num_kernels`` is the number of pixels. ``kernel_size`` must be 1.
    """

    def __init__(self, positions: dict | None = None, loss_centre: dict | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.kernel_size != 1:
            raise ValueError(f'kernels from centres are 1 x 1, got kernel_size={self.kernel_size}')
        self.positions = MODELS.build(dict(
            type='mmdet.SinePositionalEncoding', num_feats=self.channels // 2, temperature=100) | (positions or {}))
        self.loss_centre = MODELS.build(dict(type='mmdet.GaussianFocalLoss') | (loss_centre or {}))

    def _build_instance_kernels(self) -> None:
        # The default init_cfg names init_kernels; there is nothing to initialise.
        self.init_kernels = nn.Identity()  # type: ignore[assignment]
        self.conv = ConvModule(self.channels, self.channels, 3, padding=1, norm_cfg=self.norm_cfg)
        self.conv_centre = nn.Conv2d(self.channels, self.num_things_classes, 1)
        self.conv_kernel = nn.Conv2d(self.channels, 2 * self.channels + 1, 1)  # a, s, b

    def init_weights(self) -> None:
        """Apply ``init_cfg``; centres start improbable, and masks as discs."""
        super().init_weights()
        nn.init.kaiming_normal_(self.conv.conv.weight)
        assert self.conv_centre.bias is not None and self.conv_kernel.bias is not None
        nn.init.constant_(self.conv_centre.bias, bias_init_with_prob(0.01))
        nn.init.constant_(self.conv_kernel.bias[self.channels:-1], 2 * PEAK / self.channels)  # P(p) P(p) = C / 2
        nn.init.constant_(self.conv_kernel.bias[-1], OFFSET)

    def instance_kernels(self, loc: Tensor, seg: Tensor) -> InstanceKernels:
        """The kernels of the most likely centres, from (B, C, H, W) localisation and semantic features."""
        features = self.conv(loc + seg)
        with torch.autocast(features.device.type, enabled=False):  # in 16 bits, neighbours would often be equal
            centre_logits = self.conv_centre(features.to(self.conv_centre.weight.dtype))  # B, T, H, W
        class_logits = _lower_slopes(centre_logits)
        pixels = class_logits.amax(dim=1).flatten(1).topk(min(self.num_kernels, loc[0, 0].numel())).indices  # B, N

        def at_pixels(maps: Tensor) -> Tensor:
            """(B, C, H, W) to (B, N, C)."""
            maps = maps.flatten(2)
            return maps.gather(2, pixels[:, None].expand(-1, maps.shape[1], -1)).transpose(1, 2)

        positions = self.positions(loc.new_zeros((1, *loc.shape[-2:]), dtype=torch.bool)).to(loc.dtype)
        loc = loc + positions
        weights = F.linear(at_pixels(features), self.conv_kernel.weight.flatten(1), self.conv_kernel.bias)
        content, scale, offset = weights.split([self.channels, self.channels, 1], dim=-1)
        kernels = content + scale * at_pixels(positions.expand_as(loc))
        kernels = kernels[..., None, None]  # B, N, C, 1, 1
        mask_logits = convolve(kernels, loc, offset[..., 0])
        return InstanceKernels(loc, kernels, mask_logits, at_pixels(class_logits), centre_logits)

    def centre_loss(self, centre_logits: Tensor, targets: SegmentTargets) -> Tensor:
        """Loss of (B, T, H, W) logits of centres, averaged over the objects of all processes."""
        target = centre_target(targets, centre_logits.shape)
        count, = mean_over_processes(target.new_tensor([sum(targets.num_objects)]))
        return self.loss_centre(centre_logits.float().sigmoid(), target, avg_factor=count)


@torch.no_grad()
def _lower_slopes(centre_logits: Tensor) -> Tensor:
    """Lower (B, T, H, W) logits where they are no local maximum: a neighbour of a centre would be its duplicate."""
    highest = F.max_pool2d(centre_logits, 3, stride=1, padding=1)
    return centre_logits - SLOPE * (centre_logits < highest)


def centre_target(targets: SegmentTargets, shape: torch.Size) -> Tensor:
    """Closeness of each pixel to the centroid of an object of its class, a Gaussian of height 1.

    Its standard deviation is ``RADIUS`` times the root of the object's area.

    Args:
        targets: The objects.
        shape: B, T, H, W of the result.
    """
    batch, classes, height, width = shape
    count = sum(targets.num_objects)
    maps = targets.masks.new_zeros((batch * classes, height, width), dtype=torch.float32)
    if not count:
        return maps.view(shape)
    masks = resize(targets.masks[:count, None].float(), (height, width))[:, 0]
    areas = masks.sum(dim=(1, 2))
    y, x = (torch.arange(n, device=masks.device, dtype=torch.float32) for n in (height, width))
    centres = torch.stack([masks.sum(dim=2) @ y, masks.sum(dim=1) @ x], dim=1) / areas.clamp(min=1e-6)[:, None]
    centres = centres.round()  # so that a pixel has the value 1
    distance = (y - centres[:, :1]).square()[:, :, None] + (x - centres[:, 1:]).square()[:, None]  # G, H, W
    radii = (RADIUS * areas.sqrt()).clamp(min=LEAST_RADIUS)
    values = torch.exp(-distance / (2 * radii.square())[:, None, None])
    values[(values < LOWEST) | (areas == 0)[:, None, None]] = 0
    index = targets.images[:count] * classes + targets.labels[:count]
    return maps.scatter_reduce_(0, index[:, None, None].expand_as(values), values, 'amax').view(shape)
