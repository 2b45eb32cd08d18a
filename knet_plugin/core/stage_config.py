"""Configs of the update stages: the given ones merged over the default of the task."""

from collections.abc import Mapping, Sequence
from typing import Any

from knet_plugin.registry import MODELS

__all__ = ['build_part', 'class_of', 'merge_part', 'stage_configs']


def build_part(name: str, cfg: dict | None, fixed: Mapping[str, Any]) -> Any:
    """Build a part with the ``fixed`` values of its head, which its config may repeat but not contradict."""
    if cfg is None:
        return None
    _check_fixed(name, cfg, fixed, 'the head')
    return MODELS.build(dict(cfg, **fixed))


def stage_configs(given: dict | Sequence[dict] | None, num_stages: int, default: dict[str, Any],
                  fixed: Mapping[str, Any], owner: str) -> list[dict[str, Any]]:
    """Merge ``given``, one config for all stages, one for each, or None, over the task's default stage.

    The part ``owner`` (named in messages) fixes some values; a config may repeat but not contradict them.
    """
    if given is None or isinstance(given, dict):
        given = [given or {}] * num_stages
    if len(given) != num_stages:
        raise ValueError(f'kernel_update_head must hold one config for each of num_stages={num_stages} stages, '
                         f'got {len(given)}')
    configs = []
    for i, cfg in enumerate(given):
        _check_fixed(f'kernel_update_head[{i}]', cfg, fixed, owner)
        parts = {name: merge_part(part, cfg.get(name, part)) for name, part in default.items()
                 if isinstance(part, dict)}
        configs.append({**default, **cfg, **parts})
    return configs


def merge_part(default: dict[str, Any], given: dict[str, Any] | None) -> dict[str, Any] | None:
    """Merge a part's config over its default. None or a config of another ``type`` replaces the default."""
    if given is None or class_of(given.get('type', default['type'])) is not class_of(default['type']):
        return given
    return {**default, **given, 'type': default['type']}


def class_of(part_type: Any) -> type | None:
    """The class that a config's ``type``, a registered name or a class, refers to."""
    return MODELS.get(part_type) if isinstance(part_type, str) else part_type


def _check_fixed(name: str, cfg: Mapping[str, Any], fixed: Mapping[str, Any], owner: str) -> None:
    for key, value in fixed.items():
        if cfg.get(key, value) != value:
            raise ValueError(f'{name} has {key}={cfg[key]}, but {owner} has {key}={value}')
