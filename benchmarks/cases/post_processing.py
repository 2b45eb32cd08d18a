"""From mask and class logits to results in the size of the original image, against the official procedure."""

from functools import partial
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from torch import Tensor

from cases.mode import OURS, Measured, Mode
from knet_plugin.registry import MODELS

__all__ = ['MODE', 'SIZES', 'build']

OFFICIAL = 'official procedure'
SIZES = ((800, 1344), (800, 1333), (480, 800))
"""Heights and widths: the padded input, the image in it, and the original image."""
THINGS = 80


def build(contender: str, panoptic: bool, masks: str, sizes: tuple[tuple[int, int], ...],
          device: torch.device) -> Measured:
    """A panoptic map of 153 masks, or the 100 best instances of 100 masks, which are ``blobs`` or ``noise``."""
    torch.manual_seed(0)
    number, stuff = (153, 53) if panoptic else (100, 0)
    height, width = (side // 4 for side in sizes[0])
    logits = blobs(number, height, width) if masks == 'blobs' else 4 * torch.randn(number, height, width)
    logits = logits.to(device)
    class_logits = torch.randn(number, THINGS + stuff, device=device) * 2 - 3
    if contender == OURS:
        head = MODELS.build(dict(type='knet_plugin.KNetFusionHead', num_things_classes=THINGS, num_stuff_classes=stuff,
                                 test_cfg=dict(panoptic_on=panoptic, instance_on=not panoptic)))
        padded, image, original = sizes
        samples = [DetDataSample(metainfo=dict(batch_input_shape=padded, img_shape=image, ori_shape=original))]
        return Measured(lambda: head.predict(class_logits[None], logits[None], samples))
    return Measured(partial(official, class_logits.sigmoid(), logits, stuff, sizes))


def official(scores: Tensor, logits: Tensor, stuff: int, sizes: tuple[tuple[int, int], ...]) -> Any:
    """The official procedure, from (N, classes) scores and (N, h, w) mask logits."""
    import plain_knet  # not at the top: it may not fit the package of --before

    if not stuff:
        return plain_knet.instances(scores, logits, sizes)
    things, labels = scores[:-stuff, :THINGS].max(dim=1)
    stuff_labels = torch.arange(THINGS, THINGS + stuff, device=scores.device)
    return plain_knet.panoptic(
        torch.cat([things, scores[-stuff:, THINGS:].diagonal()]), torch.cat([labels, stuff_labels]),
        plain_knet.full_masks(logits, *sizes), THINGS, THINGS + stuff)


def blobs(number: int, height: int, width: int) -> Tensor:
    """Logits of soft ellipses of many sizes, similar to the masks of a trained model, (number, height, width)."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    maps = []
    for _ in range(number):
        radius = height * np.exp(generator.uniform(np.log(0.03), np.log(0.6)))
        y, x, stretch = generator.uniform(0, height), generator.uniform(0, width), generator.uniform(0.5, 2)
        distance = np.hypot((rows - y) * stretch, (columns - x) / stretch)
        maps.append((radius - distance) * generator.uniform(0.5, 1.5))
    return torch.from_numpy(np.clip(np.stack(maps), -12, 12)).float()


MODE = Mode(
    settings={f'{"panoptic, 153 masks" if panoptic else "instances, 100 masks"}, {masks}':
              {contender: partial(build, contender, panoptic, masks, SIZES) for contender in (OURS, OFFICIAL)}
              for panoptic in (True, False) for masks in ('blobs', 'noise')},
    turns=9, memory=True, goals={OFFICIAL: dict(seconds=0.25)})
