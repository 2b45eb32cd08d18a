"""Configs of the update stages of a semantic head."""

from collections.abc import Sequence
from typing import Any

from knet_plugin.core import SoftmaxMask
from knet_plugin.core.stage_config import class_of, stage_configs

__all__ = ['default_stage_config', 'semantic_stage_configs']

# Channels that the published models update together: their 512-channel kernels have two groups.
UPDATER_CHANNELS = 256


def default_stage_config(channels: int, num_kernels: int) -> dict[str, Any]:
    """The stage of the published semantic models, fitted to a classifier.

    Args:
        channels: Input channels C of the classifier. Kernels are updated in groups of 256 channels if 256 divides C.
            Attention has the largest number of heads among 8, 6, 5, 4, 3, 2, 1 that divides C.
        num_kernels: Outputs N of the classifier. A single (binary) kernel uses a sigmoid instead of a softmax.
    """
    return dict(
        type='knet_plugin.KernelUpdateHead',
        channels=channels,
        mask_activation=dict(type='knet_plugin.SigmoidMask' if num_kernels == 1 else 'knet_plugin.SoftmaxMask'),
        updater=dict(type='knet_plugin.KernelUpdater',
                     group_channels=channels if channels % UPDATER_CHANNELS else UPDATER_CHANNELS),
        interaction=dict(type='knet_plugin.KernelInteraction',
                         num_heads=next(heads for heads in (8, 6, 5, 4, 3, 2, 1) if channels % heads == 0)))


def semantic_stage_configs(given: dict | Sequence[dict] | None, num_stages: int, channels: int, num_kernels: int,
                           num_classes: int) -> list[dict[str, Any]]:
    """The default stage, overridden by the given configs.

    Args:
        given: One config for all stages, one for each, or None. It is not changed.
        num_stages: Update stages S.
        channels: Input channels C of the classifier.
        num_kernels: Outputs N of the classifier.
        num_classes: The stock head's classes. Stage configs may repeat it.
    """
    fixed = dict(channels=channels, num_classes=num_classes, kernel_size=1, classifier=None)
    configs = stage_configs(given, num_stages, default_stage_config(channels, num_kernels), fixed,
                            'the classifier of kernel_generate_head')
    for i, cfg in enumerate(configs):
        cfg.pop('num_classes', None)
        activation = cfg['mask_activation'] or dict(type=SoftmaxMask)
        if num_kernels == 1 and class_of(activation['type']) is SoftmaxMask:
            raise ValueError(f'kernel_update_head[{i}] has mask_activation={cfg["mask_activation"]}, but a softmax '
                             'over one kernel is 1 everywhere: use SigmoidMask')
    return configs
