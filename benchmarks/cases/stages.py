"""Three update stages (Eq. 2), against those of mmseg's K-Net head."""

from functools import partial
from typing import Any

import torch
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import Tensor, nn

from cases.mode import OURS, Measured, Mode
from cases.models import read_config
from cases.segmentors import MMSEG_KNET
from knet_plugin.checkpoint import to_official
from knet_plugin.registry import MODELS

__all__ = ['MODE', 'build']

MMSEG = "mmseg's head"


def build(contender: str, number: int, channels: int, size: tuple[int, int], backward: bool,
          device: torch.device) -> Measured:
    """Three stages of N kernels with C channels on features of (height, width), without a classifier, as in mmseg's.

    Stages of 512 channels use a softmax as in segmentors, others a hard mask as in detectors; mmseg's always use a
    softmax. The backward pass takes two images.
    """
    torch.manual_seed(0)
    activation = 'SoftmaxMask' if channels == 512 else 'HardMask'
    cfg = dict(type='knet_plugin.KernelUpdateHead', channels=channels,
               mask_activation=dict(type=f'knet_plugin.{activation}'),
               updater=dict(type='knet_plugin.KernelUpdater', group_channels=256))
    stages: Any = nn.ModuleList([MODELS.build(cfg) for _ in range(3)])
    if contender == MMSEG:
        stages = nn.ModuleList([mmseg_stage(stage, number, channels) for stage in stages])
    stages.to(device)
    batch = 1 + backward
    features = torch.randn(batch, channels, *size, device=device, requires_grad=backward)
    first = torch.randn(batch, number, channels, 1, 1, device=device, requires_grad=backward)
    logits = torch.randn(batch, number, *size, device=device, requires_grad=backward)

    def forward() -> list[Tensor]:
        kernels, masks, outputs = first, logits, []
        for stage in stages:
            if contender == MMSEG:
                masks, kernels = stage(features, kernels, masks)
            else:
                kernels, masks, _ = stage(features, kernels, masks)
            outputs.append(masks)
        return outputs

    def train() -> None:
        # Not the gradient of a sum: it is one number expanded to a map, which some operators handle slowly.
        torch.autograd.backward(forward(), [torch.ones_like(logits)] * 3)
        stages.zero_grad()
        features.grad = first.grad = logits.grad = None

    return Measured(train, forward) if backward else Measured(torch.no_grad()(forward))


def mmseg_stage(stage: nn.Module, number: int, channels: int) -> nn.Module:
    """A stage of mmseg's K-Net config, with the weights of ours."""
    cfg = read_config(f'mmseg::{MMSEG_KNET}.py').model.decode_head.kernel_update_head[0]
    cfg.update(type='mmseg.KernelUpdateHead', num_classes=number, in_channels=channels, out_channels=channels)
    cfg.kernel_updator_cfg.type = 'mmseg.KernelUpdator'
    theirs = MMSEG_MODELS.build(cfg)
    theirs.load_state_dict(to_official(stage.state_dict(), stage))
    return theirs


# The features of an image of 800 x 1216 in a detector, and of 512 x 512 in a segmentor.
SIZES = {'N = 100, C = 256, 100 x 152': (100, 256, (100, 152)),
         'N = 153, C = 256, 100 x 152': (153, 256, (100, 152)),
         'N = 150, C = 512, 64 x 64': (150, 512, (64, 64))}

MODE = Mode(
    settings={f'{name}, {"forward + backward, 2 images" if backward else "forward"}':
              {contender: partial(build, contender, *sizes, backward) for contender in (OURS, MMSEG)}
              for name, sizes in SIZES.items() for backward in (False, True)},
    turns=15, memory=True, goals={MMSEG: dict(seconds=0.5, kept=0.4)})
