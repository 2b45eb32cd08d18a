"""Adds to a config the hooks that every run of our tools has."""

from mmengine import hooks
from mmengine.config import Config

from knet_plugin.engine.scores import best_score_key
from knet_plugin.registry import SCOPE

__all__ = ['add_run_parts']

_HOOKS = tuple(f'{SCOPE}.{name}' for name in ('DataCheckHook', 'FiniteInputHook', 'SafeLoadingHook', 'ProgressHook',
                                              'ValidationReportHook', 'SheetHook', 'StopHook'))


def add_run_parts(cfg: Config) -> None:
    """Add, in place, the hooks that make a run safe to interrupt, to start from other people's files, and to follow.

    ``DataCheckHook``, ``FiniteInputHook``, ``SafeLoadingHook``, ``ProgressHook``, ``ValidationReportHook``,
    ``SheetHook`` and ``StopHook`` join ``custom_hooks`` unless they are there. mmengine's ``CheckpointHook`` becomes
    ours and keeps the best checkpoint, if the run validates; another hook, or ``None``, in its place stays. Calling it
    again changes nothing.
    """
    custom = list(cfg.get('custom_hooks') or [])
    present = {hook['type'] for hook in custom if isinstance(hook, dict)}
    cfg.custom_hooks = custom + [dict(type=name) for name in _HOOKS if name not in present]

    default = dict(cfg.get('default_hooks') or {})
    checkpoint = default.get('checkpoint', dict(type='CheckpointHook', interval=1))  # mmengine's own default
    of_mmengine = ('CheckpointHook', 'mmengine.CheckpointHook', hooks.CheckpointHook)
    if isinstance(checkpoint, dict) and checkpoint['type'] in of_mmengine:
        default['checkpoint'] = dict(checkpoint, type=f'{SCOPE}.CheckpointHook')
        best = best_score_key(cfg.get('val_evaluator')) if cfg.get('val_cfg') is not None else None
        if best and 'save_best' not in checkpoint:
            default['checkpoint'].update(save_best=best, rule='greater')
        cfg.default_hooks = default
