"""Whole segmentors, against the same without K-Net, and mmseg's K-Net."""

from functools import partial
from typing import Any

import torch
from mmseg.structures import SegDataSample

from cases.mode import BEFORE, OURS, Measured, Mode
from cases.models import build_model, read_config
from knet_plugin import attach

__all__ = ['CONFIGS', 'MMSEG_KNET', 'MODE', 'build']

MMSEG, ALONE = "mmseg's K-Net", 'without K-Net'
SIZE = 512, 512
CONFIGS = {  # of mmseg, by setting
    'FCN, R-50': 'fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512',
    'PSPNet, R-50': 'pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512',
    'DeepLabV3+, R-50': 'deeplabv3plus/deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512',
    'UPerNet, R-50': 'upernet/upernet_r50_4xb4-80k_ade20k-512x512',
    'SegFormer, MiT-B2': 'segformer/segformer_mit-b2_8xb2-160k_ade20k-512x512',
}
MMSEG_KNET = 'knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512'


def build(config: str, with_knet: bool, size: tuple[int, int], device: torch.device) -> Measured:
    """Predict one image of ``size``, (height, width), by a model of mmseg, or by it with three stages on its head."""
    cfg = read_config(f'mmseg::{config}.py')
    model: Any = build_model(attach(cfg) if with_knet else cfg, 'mmseg', device).eval()
    inputs = torch.randn(1, 3, *size, device=device)
    samples = [SegDataSample(metainfo=dict(img_shape=size, ori_shape=size))]
    return Measured(torch.no_grad()(lambda: model(inputs, samples, mode='predict')))


def settings() -> dict[str, dict[str, Any]]:
    """Every model without and with K-Net; mmseg has a K-Net for one of them that is measured here."""
    found: dict[str, dict[str, Any]] = {
        f'{name}, 512 x 512': {OURS: partial(build, config, True, SIZE), ALONE: partial(build, config, False, SIZE)}
        for name, config in CONFIGS.items()}
    next(iter(found.values()))[MMSEG] = partial(build, MMSEG_KNET, False, SIZE)
    return found


MODE = Mode(settings=settings(), turns=9,
            goals={MMSEG: dict(seconds=1.), ALONE: dict(seconds=1.15), BEFORE: dict(seconds=1.05)})
