"""Configs of the update stages: the given ones merged over the default of the task."""

from collections.abc import Mapping, Sequence
from typing import Any

from knet_plugin.registry import MODELS

__all__ = ['build_part', 'class_of', 'merge_parts', 'stage_configs']


def build_part(name: str, cfg: dict | None, fixed: Mapping[str, Any]) -> Any:
    """Build a part with the ``fixed`` values of its head, which its config may repeat but not contradict."""
    if cfg is None:
        return None
    for key, value in fixed.items():
        if cfg.get(key, value) != value:
            raise ValueError(f'{name} says {key}={cfg[key]}, but the head has {key}={value}')
    return MODELS.build(dict(cfg, **fixed))


def stage_configs(given: dict | Sequence[dict] | None, num_stages: int, default: dict[str, Any],
                  fixed: Mapping[str, Any], owner: str) -> list[dict[str, Any]]:
    """Merge the given stage configs over the default.

    Args:
        given: One config for all stages, one for each, or None. It is not modified.
        num_stages: Update stages S.
        default: The task's default stage.
        fixed: Values that a config may repeat but not contradict.
        owner: The part that fixes these values, for messages.
    """
    if num_stages < 0:
        raise ValueError(f'num_stages must not be negative, got num_stages={num_stages}')
    if given is None or isinstance(given, dict):
        given = [given or {}] * num_stages
    if len(given) != num_stages:
        raise ValueError(f'kernel_update_head must hold one config for each of num_stages={num_stages} stages, '
                         f'got {len(given)}')
    for i, cfg in enumerate(given):
        if not isinstance(cfg, dict):
            raise TypeError(f'kernel_update_head[{i}] must be a dict, got {cfg!r}')
        for name, own in fixed.items():
            if cfg.get(name, own) != own:
                raise ValueError(f'kernel_update_head[{i}] says {name}={cfg[name]}, but {owner} has {name}={own}')
    return [merge_parts(default, cfg) for cfg in given]


def merge_parts(default: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Merge ``given`` over ``default``, and the dicts in it too, unless their ``type`` differs from the default's."""
    merged = {**default, **given}
    for name, part in default.items():
        override = given.get(name)
        if isinstance(part, dict) and isinstance(override, dict):
            own = class_of(part['type'])
            if class_of(override.get('type', own)) is own:
                merged[name] = {**part, **override, 'type': part['type']}
    return merged


def class_of(part_type: Any) -> type | None:
    """The class that a config's ``type``, a registered name or a class, refers to."""
    return MODELS.get(part_type) if isinstance(part_type, str) else part_type
