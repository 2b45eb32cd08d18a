"""Configs of the update stages that a semantic classifier calls for."""

from collections.abc import Sequence
from typing import Any

from knet_plugin.core import SoftmaxMask
from knet_plugin.registry import MODELS

__all__ = ['default_stage_config', 'resolve_stage_configs']

# Channels that the published semantic models update together (512 channels are two half-kernels).
UPDATER_CHANNELS = 256


def default_stage_config(channels: int, num_kernels: int) -> dict[str, Any]:
    """The stage of the published semantic models, fitted to a classifier.

    Args:
        channels: Input channels C of the classifier. Where 256 divides C, the kernels are updated in groups of 256.
            Attention gets the largest number of heads of 8, 6, 5, 4, 3, 2, 1 that divides C.
        num_kernels: Outputs N of the classifier. A single (binary) kernel claims pixels by sigmoid, not softmax.

    Returns:
        A config of ``KernelUpdateHead``.
    """
    return dict(
        type='knet_plugin.KernelUpdateHead',
        channels=channels,
        mask_activation=dict(type='knet_plugin.SigmoidMask' if num_kernels == 1 else 'knet_plugin.SoftmaxMask'),
        updater=dict(type='knet_plugin.KernelUpdater',
                     group_channels=channels if channels % UPDATER_CHANNELS else UPDATER_CHANNELS),
        interaction=dict(type='knet_plugin.KernelInteraction',
                         num_heads=next(heads for heads in (8, 6, 5, 4, 3, 2, 1) if channels % heads == 0)))


def resolve_stage_configs(given: dict | Sequence[dict] | None, num_stages: int, channels: int, num_kernels: int,
                          num_classes: int) -> list[dict[str, Any]]:
    """Lay the given stage configs over the defaults.

    Args:
        given: One config for all stages, one for each, or None. Nothing in it is changed.
        num_stages: Update stages S.
        channels: Input channels C of the classifier.
        num_kernels: Outputs N of the classifier.
        num_classes: The stock head's classes. Stage configs may repeat it, as mmseg's own K-Net configs do.

    Returns:
        S configs.

    Raises:
        ValueError: If S is negative or not the number of configs, or if a config contradicts the classifier.
        TypeError: If a config is not a dict.
    """
    if num_stages < 0:
        raise ValueError(f'num_stages must not be negative, got num_stages={num_stages}')
    if given is None or isinstance(given, dict):
        given = [given or {}] * num_stages
    if len(given) != num_stages:
        raise ValueError(f'kernel_update_head must hold one config for each of num_stages={num_stages} stages, '
                         f'got {len(given)}')
    resolved = []
    for i, cfg in enumerate(given):
        if not isinstance(cfg, dict):
            raise TypeError(f'kernel_update_head[{i}] must be a dict, got {cfg!r}')
        for name, own in dict(channels=channels, num_classes=num_classes, kernel_size=1).items():
            if cfg.get(name, own) != own:
                raise ValueError(f'kernel_update_head[{i}] says {name}={cfg[name]}, but the classifier of the '
                                 f'kernel_generate_head has {name}={own}')
        given_parts = {name: part for name, part in cfg.items() if (name, part) != ('mask_activation', None)}
        merged = _merge(default_stage_config(channels, num_kernels), given_parts)
        merged.pop('num_classes', None)
        if num_kernels == 1 and _class_of(merged['mask_activation']['type']) is SoftmaxMask:
            raise ValueError(f'kernel_update_head[{i}] has mask_activation={merged["mask_activation"]}, but over the '
                             'single kernel of a binary head a softmax is 1 everywhere: use SigmoidMask')
        resolved.append(merged)
    return resolved


def _merge(default: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """``given`` over ``default``; a part is merged too, unless it is of another ``type`` than the default's."""
    merged = {**default, **given}
    for name, part in default.items():
        override = given.get(name)
        if isinstance(part, dict) and isinstance(override, dict):
            own = _class_of(part['type'])
            if _class_of(override.get('type', own)) is own:
                merged[name] = {**part, **override, 'type': part['type']}
    return merged


def _class_of(part_type: Any) -> type | None:
    return MODELS.get(part_type) if isinstance(part_type, str) else part_type
