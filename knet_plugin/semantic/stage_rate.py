"""The learning rate of the update stages that K-Net adds to a config of mmseg."""

from collections.abc import Mapping
from typing import Any

from knet_plugin.migration.options import bare_type

__all__ = ['PUBLISHED_LR', 'stage_custom_keys']

PUBLISHED_LR = 1e-4  # of all published models, with AdamW
_KEY = 'kernel_update_head'


def stage_custom_keys(cfg: Mapping[str, Any], lr_mult: float | None = None) -> dict[str, dict[str, Any]]:
    """Return what ``optim_wrapper.paramwise_cfg.custom_keys`` of a config must get for the update stages.

    Args:
        cfg: A config of mmseg. It is not changed.
        lr_mult: Rate of the stages as a multiple of the optimizer's. None: an entry of the config stays; otherwise Adam
            and its variants get ``PUBLISHED_LR``, and other optimizers keep their rate.

    Returns:
        One entry, or none if the stages have that rate already, or if the config has no ``custom_keys`` to read.

    Raises:
        ValueError: If ``lr_mult`` is not positive, or is given although nothing in the config reads it.
    """
    wrapper: Mapping[str, Any] = cfg.get('optim_wrapper') or {}
    optimizer = wrapper.get('optimizer') or {}
    constructor = bare_type(wrapper.get('constructor') or 'DefaultOptimWrapperConstructor')
    readable = 'lr' in optimizer and constructor.endswith('DefaultOptimWrapperConstructor')
    keys = (wrapper.get('paramwise_cfg') or {}).get('custom_keys') or {}
    if lr_mult is None:
        if not readable or _KEY in keys or 'Adam' not in bare_type(optimizer.get('type', '')):
            return {}
        lr_mult = float(f'{PUBLISHED_LR / optimizer["lr"]:.2g}')
    elif lr_mult <= 0:
        raise ValueError(f'lr_mult must be positive, got lr_mult={lr_mult}')
    elif not readable:
        reason = (f'optim_wrapper.constructor={constructor!r} does not read custom_keys' if optimizer else
                  'the config has no optim_wrapper.optimizer')
        raise ValueError(f'lr_mult={lr_mult} would have no effect: {reason}')
    if lr_mult == _present_lr_mult(keys):
        return {}
    return {_KEY: {**keys.get(_KEY, {}), 'lr_mult': lr_mult}}


def _present_lr_mult(keys: Mapping[str, Mapping[str, Any]]) -> float:
    """Return the multiple that the stages have without a further entry: mmengine takes the longest key that fits."""
    fitting = [key for key in keys if key in f'decode_head.{_KEY}']
    return keys[max(fitting, key=len)].get('lr_mult', 1.) if fitting else 1.
