"""Build a segmentor on the CPU and run it once on random images, to see that it works and what it costs."""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

__all__ = ['Cost', 'build_segmentor', 'dummy_batch', 'input_size', 'measure', 'shortest_seconds', 'train_step']


@dataclass
class Cost:
    """What a model costs.

    Attributes:
        parameters: Weights, all of them.
        flops: Multiply-adds of the convolutions, products and attentions of one image. (One each, as mmengine's count,
            where torch's has two.)
    """

    parameters: int
    flops: float


def input_size(cfg: Config) -> tuple[int, int]:
    """Height and width that a config trains on; 512 x 512 where it does not say."""
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    size = preprocessor.get('size') or cfg.get('crop_size') or (512, 512)
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def build_segmentor(cfg: Config, size: tuple[int, int]) -> BaseSegmentor:
    """Build a config's model on the CPU, with random weights: nothing is downloaded or synchronised.

    Args:
        cfg: A config of mmseg.
        size: Height and width that images are padded or cropped to in training.
    """
    model = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor'):  # as mmengine's runners take it
        model.setdefault('data_preprocessor', copy.deepcopy(cfg.data_preprocessor))
    if 'size' in (model.get('data_preprocessor') or {}):
        model.data_preprocessor.size = size
    model.pop('pretrained', None)
    for name in ('init_cfg', 'pretrained'):
        (model.get('backbone') or {}).pop(name, None)
    with DefaultScope.overwrite_default_scope('mmseg'):
        segmentor = revert_sync_batchnorm(MODELS.build(model))
    return segmentor


def dummy_batch(model: BaseSegmentor, size: tuple[int, int], images: int = 2) -> dict[str, list]:
    """Random images with blocks of random classes, and the edge maps that boundary losses want.

    Args:
        model: A segmentor; its decode head says the number of classes, and its preprocessor that of channels.
        size: Height and width.
        images: How many.

    Returns:
        ``inputs`` and ``data_samples`` as mmseg's data loaders yield them.
    """
    classes: Any = model.num_classes  # of the last head
    generator = torch.Generator().manual_seed(0)
    channels = len(getattr(model.data_preprocessor, 'mean', range(3)))
    inputs = list(torch.randint(0, 256, (images, channels, *size), dtype=torch.uint8, generator=generator))
    samples = []
    for i in range(images):
        blocks = torch.randint(0, classes, (4, 4), generator=generator)
        labels = blocks.repeat_interleave(-(-size[0] // 4), 0).repeat_interleave(-(-size[1] // 4), 1)
        labels = labels[None, :size[0], :size[1]]
        edges = torch.zeros_like(labels)
        edges[:, ::max(size[0] // 4, 1)] = 1
        metainfo = dict(img_shape=size, ori_shape=size, pad_shape=size, img_path=f'{i}.jpg', seg_map_path=f'{i}.png')
        samples.append(SegDataSample(metainfo=metainfo, gt_sem_seg=PixelData(data=labels),
                                     gt_edge_map=PixelData(data=edges)))
    return dict(inputs=inputs, data_samples=samples)


def train_step(model: BaseSegmentor, size: tuple[int, int], images: int = 2) -> dict[str, float]:
    """One step of SGD on random images, with a rate of 0: weights stay, statistics and gradients do not.

    Args:
        model: A segmentor.
        size: Height and width of the images.
        images: How many.

    Returns:
        The losses and metrics.

    Raises:
        FloatingPointError: If a loss is not finite.
    """
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.0))
    with DefaultScope.overwrite_default_scope('mmseg'):
        losses = {key: value.item() for key, value in
                  model.train().train_step(dummy_batch(model, size, images), optimizer).items()}
    if wrong := [key for key, value in losses.items() if not torch.tensor(value).isfinite()]:
        raise FloatingPointError(f'these losses are not finite: {", ".join(wrong)}')
    return losses


def measure(model: BaseSegmentor, size: tuple[int, int]) -> Cost:
    """Predict a dummy image, and count.

    Args:
        model: A segmentor.
        size: Height and width of the image.

    Raises:
        ValueError: If the prediction is not of that size.
    """
    model.eval()
    # With gradients and by plain products, since attention in one piece is not counted.
    with DefaultScope.overwrite_default_scope('mmseg'), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), \
            FlopCounterMode(display=False) as counter:
        result, = model.test_step(dummy_batch(model, size, 1))
    if result.pred_sem_seg.data.shape[-2:] != torch.Size(size):
        raise ValueError(f'the prediction has the shape {tuple(result.pred_sem_seg.data.shape)}, not {size}')
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(parameters, counter.get_total_flops() / 2)


@torch.no_grad()
def shortest_seconds(models: Sequence[BaseSegmentor], size: tuple[int, int], repetitions: int = 3) -> list[float]:
    """The shortest time that each of several models takes for a dummy image.

    They take turns, so that what else the machine does slows all of them down, and not the one that had bad luck.

    Args:
        models: Segmentors.
        size: Height and width of the image.
        repetitions: How often each of them is timed.
    """
    seconds: list[list[float]] = [[] for _ in models]
    with DefaultScope.overwrite_default_scope('mmseg'):
        for _ in range(repetitions):
            for model, times in zip(models, seconds, strict=True):
                batch = dummy_batch(model.eval(), size, 1)
                start = time.perf_counter()
                model.test_step(batch)
                times.append(time.perf_counter() - start)
    return [min(times) for times in seconds]
