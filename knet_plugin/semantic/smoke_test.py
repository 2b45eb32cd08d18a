"""Build a segmentor on the CPU, run it on random images, and measure its cost."""

import copy
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

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


class Cost(NamedTuple):
    """Parameters of a model, and multiply-accumulates (mmengine's FLOPs) of one prediction."""

    parameters: int
    flops: float


def input_size(cfg: Config) -> tuple[int, int]:
    """Height and width of a config's training images; 512 x 512 if it does not say."""
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    size = preprocessor.get('size') or cfg.get('crop_size') or 512
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def build_segmentor(cfg: Config, size: tuple[int, int]) -> BaseSegmentor:
    """A config's model with random weights and plain batch norm, for training images of a height and width."""
    model = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor'):  # mmengine's runners accept it outside the model
        model.setdefault('data_preprocessor', copy.deepcopy(cfg.data_preprocessor))
    if 'size' in (model.get('data_preprocessor') or {}):
        model.data_preprocessor.size = size
    for part in (model, model.get('backbone') or {}):
        part.pop('pretrained', None)
        part.pop('init_cfg', None)
    with DefaultScope.overwrite_default_scope('mmseg'):
        return revert_sync_batchnorm(MODELS.build(model))


def dummy_batch(model: BaseSegmentor, size: tuple[int, int], images: int = 2) -> dict[str, list]:
    """Random images, classes and edge maps, as mmseg's data loaders yield them."""
    classes: Any = model.num_classes
    generator = torch.Generator().manual_seed(0)
    channels = len(getattr(model.data_preprocessor, 'mean', range(3)))
    inputs = list(torch.randint(0, 256, (images, channels, *size), dtype=torch.uint8, generator=generator))
    labels = torch.randint(0, classes, (images, 1, *size), generator=generator)
    samples = [SegDataSample(metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size), gt_edge_map=PixelData(
        data=image_labels % 2), gt_sem_seg=PixelData(data=image_labels)) for image_labels in labels]
    return dict(inputs=inputs, data_samples=samples)


def train_step(model: BaseSegmentor, size: tuple[int, int], images: int = 2) -> dict[str, float]:
    """Losses and metrics of one training step with learning rate 0.

    Raises:
        FloatingPointError: If a loss is not finite.
    """
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.0))
    with DefaultScope.overwrite_default_scope('mmseg'):
        losses = model.train().train_step(dummy_batch(model, size, images), optimizer)
    if wrong := [name for name, value in losses.items() if not value.isfinite().all()]:
        raise FloatingPointError(f'these losses are not finite: {", ".join(wrong)}')
    return {name: value.item() for name, value in losses.items()}


def measure(model: BaseSegmentor, size: tuple[int, int]) -> Cost:
    """Parameters, and MACs of convolutions, matrix products and attention."""
    # Without gradients, and in one kernel, torch does not count attention.
    with DefaultScope.overwrite_default_scope('mmseg'), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), \
            FlopCounterMode(display=False) as counter:
        model.eval().test_step(dummy_batch(model, size, 1))
    return Cost(sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops() / 2)


@torch.no_grad()
def shortest_seconds(models: Sequence[BaseSegmentor], size: tuple[int, int], repetitions: int = 3) -> list[float]:
    """The shortest time of several predictions of one image by each model. The models take turns."""
    seconds: list[list[float]] = [[] for _ in models]
    with DefaultScope.overwrite_default_scope('mmseg'):
        for _ in range(repetitions):
            for model, times in zip(models, seconds, strict=True):
                batch = dummy_batch(model.eval(), size, 1)
                start = time.perf_counter()
                model.test_step(batch)
                times.append(time.perf_counter() - start)
    return [min(times) for times in seconds]
