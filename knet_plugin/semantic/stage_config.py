"""Configs of the update stages that a semantic classifier calls for."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from knet_plugin.core import SoftmaxMask
from knet_plugin.core.stage_config import class_of, stage_configs

__all__ = ['default_stage_config', 'resolve_stage_configs', 'without_defaults']

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


def without_defaults(cfg: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """What of a stage's config has to be said.

    Args:
        cfg: A whole config: a part that it does not name is left to its class, not to ``default``.
        default: What it will be laid over, as by :func:`default_stage_config`.

    Returns:
        The config without what ``default`` says and what is its class's own default; parts likewise.
    """
    own = class_of(default['type'])
    if own is None or class_of(cfg.get('type', own)) is not own:
        return dict(cfg)
    signature = inspect.signature(own).parameters.items()
    implied = {name: parameter.default for name, parameter in signature} | dict(default)
    result = {}
    for name, value in cfg.items():
        known = implied.get(name, inspect.Parameter.empty)
        if name == 'type' or value == known:
            continue
        if isinstance(value, Mapping) and isinstance(known, Mapping) and 'type' in known:
            value = without_defaults(value, known)
            if not value:
                continue
        result[name] = value
    return result


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
    fixed = dict(channels=channels, num_classes=num_classes, kernel_size=1)
    configs = stage_configs(_without_default_activation(given), num_stages, default_stage_config(channels, num_kernels),
                            fixed, 'the classifier of the kernel_generate_head')
    for i, cfg in enumerate(configs):
        cfg.pop('num_classes', None)
        if num_kernels == 1 and class_of(cfg['mask_activation']['type']) is SoftmaxMask:
            raise ValueError(f'kernel_update_head[{i}] has mask_activation={cfg["mask_activation"]}, but over the '
                             'single kernel of a binary head a softmax is 1 everywhere: use SigmoidMask')
    return configs


def _without_default_activation(given: Any) -> Any:
    """``mask_activation=None`` means the default, which only the classifier knows."""
    if isinstance(given, dict):
        return {name: part for name, part in given.items() if (name, part) != ('mask_activation', None)}
    if isinstance(given, list | tuple):
        return [_without_default_activation(cfg) for cfg in given]
    return given
