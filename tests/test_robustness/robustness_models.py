"""Small whole models of the three tasks, and batches in the form of a data loader."""

from functools import lru_cache
from typing import Any

import torch
from detection_cases import sample
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS as MMSEG_MODELS
from robustness_inputs import make_label_map, make_masks
from segmentation_cases import labelled
from torch import Tensor, nn

from knet_plugin.cli import resolve_config

TASKS = dict(panoptic='knet-s3_r18-s_fpn_1xb8-adamw-1k_shapes-panoptic-128x128',
             instance='knet-s3_r18-s_fpn_1xb8-adamw-1k_shapes-instance-128x128',
             semantic='knet-s3_r18-s_fcn_1xb8-adamw-1k_shapes-128x128')
THINGS, CLASSES = 6, 10
KERNELS = 5  # fewer than objects


def model_config(task: str) -> Config:
    """The small config of a task with thinner layers, and backbone statistics frozen."""
    cfg = Config.fromfile(resolve_config(TASKS[task]))
    cfg.model.backbone.update(base_channels=8, norm_eval=True)
    if task == 'semantic':
        head = cfg.model.decode_head.kernel_generate_head
        head.update(in_channels=16, channels=16, norm_cfg=dict(type='GN', num_groups=4))
        cfg.model.data_preprocessor.update(size=None, size_divisor=16)
        cfg.model.backbone.stem_channels = 8
    else:
        cfg.model.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
        cfg.model.panoptic_head.kernel_head.update(num_kernels=KERNELS, channels=16)
        cfg.model.panoptic_head.kernel_update_head.interaction.update(feedforward_channels=16)
    return cfg


def build_model(cfg: Config) -> nn.Module:
    """The model of a config with random weights."""
    torch.manual_seed(0)
    registry, scope = (MMSEG_MODELS, 'mmseg') if 'decode_head' in cfg.model else (MMDET_MODELS, 'mmdet')
    with DefaultScope.overwrite_default_scope(scope):
        return registry.build(cfg.model)


@lru_cache
def model_of(task: str) -> nn.Module:
    """The same model in every test."""
    return build_model(model_config(task))


def make_batch(task: str, images: list[dict], seed: int) -> dict[str, list]:
    """Draw a batch.

    Args:
        task: One of ``TASKS``.
        images: ``size``, ``masks`` (kinds of the objects' masks), ``label_map`` (its kind) and, where it differs from
            ``size``, ``original`` of each.
        seed: Of pixels and annotations.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs, samples = [], []
    for i, image in enumerate(images):
        height, width = image['size']
        inputs.append(torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8))
        label_map = make_label_map(image['label_map'], CLASSES, height, width, generator)
        metainfo = dict(img_path=f'{i}.jpg', img_shape=image['size'], ori_shape=image.get('original', image['size']))
        if task == 'semantic':
            samples += labelled(label_map[None, None], **metainfo)
            continue
        masks = make_masks(image['masks'], height, width, generator)
        labels = torch.randint(THINGS, (len(masks), ), generator=generator)
        samples.append(sample(masks, labels, (height, width), label_map, **metainfo))
    return dict(inputs=inputs, data_samples=samples)


def losses_of(model: nn.Module, batch: dict[str, list]) -> dict[str, Tensor]:
    """Losses of a training step; the gradients stay in the parameters."""
    model.train()
    model.zero_grad()
    losses = model(**model.data_preprocessor(batch, training=True), mode='loss')
    model.parse_losses(losses)[0].backward()
    return losses


def predictions_of(model: nn.Module, batch: dict[str, list]) -> list[Any]:
    """Predictions of a test step."""
    with torch.no_grad():
        return model.eval().test_step(batch)
