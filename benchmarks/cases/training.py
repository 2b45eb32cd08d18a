"""A training step of a detector."""

from functools import partial

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData, PixelData

from cases.mode import BEFORE, OURS, Measured, Mode
from cases.models import build_model, read_config

__all__ = ['MODE', 'SAVING', 'build']


def build(config: str, objects: int, with_cp: bool, size: tuple[int, int], device: torch.device) -> Measured:
    """Forward and backward pass of two images; with ``with_cp``, backbone and head use activation checkpointing."""
    cfg = read_config(config)
    if with_cp:
        cfg.model.backbone.with_cp = cfg.model.panoptic_head.with_cp = True
    model = build_model(cfg, 'mmdet', device).train()
    samples = training_batch(objects, size, 'panoptic' in config, device)
    inputs = torch.randn(2, 3, *size, device=device)

    def step() -> None:
        losses = model(inputs, samples, mode='loss')
        sum(value.sum() for name, value in losses.items() if 'loss' in name).backward()
        model.zero_grad()

    return Measured(step)


def training_batch(objects: int, size: tuple[int, int], panoptic: bool, device: torch.device) -> list[DetDataSample]:
    """Two images with rectangles as objects, on a background of ten stuff classes."""
    generator = np.random.default_rng(0)
    height, width = size
    samples = []
    for _ in range(2):
        masks = np.zeros((objects, height, width), np.uint8)
        for mask in masks:
            h, w = generator.integers(height // 24, height // 3, 2)
            y, x = generator.integers(0, height - h), generator.integers(0, width - w)
            mask[y:y + h, x:x + w] = 1
        sample = DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, batch_input_shape=size, pad_shape=size))
        sample.gt_instances = InstanceData(
            masks=BitmapMasks(masks, height, width), labels=torch.arange(objects, device=device) % 80,
            bboxes=torch.zeros(objects, 4, device=device))
        if panoptic:
            rows = torch.arange(height, device=device) * 10 // height + 80
            sample.gt_sem_seg = PixelData(sem_seg=rows[None, :, None].expand(1, height, width).clone())
        samples.append(sample)
    return samples


INSTANCE, PANOPTIC = 'knet-s3_r50_fpn_1x_coco', 'knet-s3_r50_fpn_1x_coco-panoptic'

MODE = Mode(
    settings={f'{name}, 2 images of 480 x 640': {OURS: partial(build, *options, (480, 640))} for name, options in {
        'instance, 10 objects each': (INSTANCE, 10, False),
        'panoptic, 60 objects each': (PANOPTIC, 60, False),
        'panoptic, 60 objects each, with_cp': (PANOPTIC, 60, True)}.items()},
    turns=9, memory=True, goals={BEFORE: dict(seconds=1.05, peak=1.03)})
SAVING = Mode(
    settings={'panoptic, 60 objects each, 2 images of 480 x 640, with_cp': {
        OURS: partial(build, PANOPTIC, 60, True, (480, 640)),
        'published procedure': partial(build, PANOPTIC, 60, False, (480, 640))}},
    turns=3, memory=True, goals={'published procedure': dict(peak=0.6)}, before=False)
