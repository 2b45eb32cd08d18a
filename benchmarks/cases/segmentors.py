"""Whole segmentors, against mmseg's K-Net and the FCN without either."""

from functools import partial
from typing import Any

import torch
from mmseg.structures import SegDataSample

from cases.mode import BEFORE, OURS, Measured, Mode
from cases.models import build_model, read_config

__all__ = ['CONFIGS', 'MODE', 'build']

MMSEG, FCN = "mmseg's K-Net", 'FCN alone'
CONFIGS = {OURS: 'knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512',
           MMSEG: 'mmseg::knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py',
           FCN: 'mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py'}


def build(config: str, size: tuple[int, int], device: torch.device) -> Measured:
    """Predict one image of ``size``, (height, width)."""
    model: Any = build_model(read_config(config), 'mmseg', device).eval()
    inputs = torch.randn(1, 3, *size, device=device)
    samples = [SegDataSample(metainfo=dict(img_shape=size, ori_shape=size))]
    return Measured(torch.no_grad()(lambda: model(inputs, samples, mode='predict')))


MODE = Mode(
    settings={'FCN, R-50-D8, 512 x 512': {name: partial(build, config, (512, 512))
                                          for name, config in CONFIGS.items()}},
    turns=9, goals={MMSEG: dict(seconds=1.), BEFORE: dict(seconds=1.05)})
