"""Schedule and runtime of mmcv 1, as mmengine has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from knet_plugin.checkpoint.key_map import CONTAINER_KEYS, KERNEL_HEAD_KEYS, UPDATE_HEAD_KEYS
from knet_plugin.migration.options import Options, Report, bare_type

__all__ = ['runtime_config', 'schedule_config']

NO_COUNTERPART = 'has no mechanical translation'
# What a parameter's name may contain on the other side, the longest first.
_PARAMETER_NAMES = {**CONTAINER_KEYS, 'roi_head': 'panoptic_head.kernel_update_head', **KERNEL_HEAD_KEYS,
                    'kernel_update_conv': 'updater',
                    **{key: name for key, name in UPDATE_HEAD_KEYS.items() if '.' in key}}


def schedule_config(options: Options, evaluation: Mapping) -> dict[str, Any]:
    """Optimizer, learning rates and loops.

    Args:
        options: The whole old config; what concerns the schedule is taken from it.
        evaluation: Its ``evaluation``.

    Returns:
        ``optim_wrapper``, ``param_scheduler``, ``train_cfg``, ``val_cfg`` and ``test_cfg``, as far as the config
        says them.
    """
    cfg: dict[str, Any] = {}
    if 'optimizer' in options:
        cfg['optim_wrapper'] = _optim_wrapper(options)
    options.by_hand(['optimizer_config', 'fp16'], 'there is no optimizer to wrap')
    runner = options.take('runner') or {}
    if 'total_epochs' in options:
        runner = dict(type='EpochBasedRunner', max_epochs=options.take('total_epochs'))
    if runner:
        cfg |= _loops(runner, evaluation, options.report)
    if 'lr_config' in options:
        loop = cfg.get('train_cfg', {})
        length = loop.get('max_epochs'), loop.get('max_iters')
        cfg['param_scheduler'] = _param_scheduler(options.take('lr_config'), *length, options.report)
    return cfg


def _optim_wrapper(options: Options) -> dict[str, Any]:
    report = options.report
    optimizer = dict(options.take('optimizer'))
    cfg: dict[str, Any] = dict(type='OptimWrapper', optimizer=optimizer)
    paramwise = optimizer.pop('paramwise_cfg', None)
    if paramwise:
        paramwise = dict(paramwise)
        if 'custom_keys' in paramwise:
            paramwise['custom_keys'] = {_parameter_name(key): value
                                        for key, value in paramwise['custom_keys'].items()}
        cfg['paramwise_cfg'] = paramwise
    if 'constructor' in optimizer:
        report.by_hand('optimizer.constructor', optimizer.pop('constructor'), NO_COUNTERPART)
    with Options(options.take('optimizer_config') or {}, 'optimizer_config', report) as given:
        if (clip := given.take('grad_clip')) is not None:
            cfg['clip_grad'] = clip
        if (kind := given.take('type', 'OptimizerHook')) != 'OptimizerHook':
            report.by_hand('optimizer_config.type', kind, NO_COUNTERPART)
        for name, value in given.rest().items():
            report.by_hand(f'optimizer_config.{name}', value, NO_COUNTERPART)
    if (half := options.take('fp16')) is not None:
        cfg |= dict(type='AmpOptimWrapper', loss_scale=half.get('loss_scale', 512.))
    return cfg


def _parameter_name(key: str) -> str:
    """A part of an official parameter's name as it is here; a host's names are the same."""
    for official in sorted(_PARAMETER_NAMES, key=len, reverse=True):
        if official in key:
            return key.replace(official, _PARAMETER_NAMES[official])
    return key


def _loops(runner: Any, evaluation: Mapping, report: Report) -> dict[str, Any]:
    with Options(runner, 'runner', report) as options:
        kind = bare_type(options.take('type', 'EpochBasedRunner'))
        interval = evaluation.get('interval', 1)
        if kind == 'EpochBasedRunner':
            loop = dict(type='EpochBasedTrainLoop', max_epochs=options.require('max_epochs'), val_interval=interval)
        elif kind == 'IterBasedRunner':
            loop = dict(type='IterBasedTrainLoop', max_iters=options.require('max_iters'), val_interval=interval)
        else:
            report.by_hand('runner', dict(runner), NO_COUNTERPART)
            options.rest()
            return {}
        if 'start' in evaluation:
            loop['val_begin'] = evaluation['start']
    return dict(train_cfg=loop, val_cfg=dict(type='ValLoop'), test_cfg=dict(type='TestLoop'))


def _param_scheduler(official: Any, max_epochs: int | None, max_iters: int | None, report: Report) -> list[dict]:
    """Warm-up and steps. mmengine counts milestones from ``begin``, the old ones from the start of the training."""
    with Options(official, 'lr_config', report) as options:
        schedulers: list[dict] = []
        by_epoch = options.take('by_epoch', True)
        warmup, warmup_iters = options.take('warmup'), options.take('warmup_iters', 0)
        ratio = options.take('warmup_ratio', 0.1)
        if warmup in ('linear', 'constant') and not options.take('warmup_by_epoch', False):
            if warmup == 'linear':
                schedulers.append(dict(type='LinearLR', start_factor=ratio, by_epoch=False, begin=0,
                                       end=warmup_iters))
            else:
                schedulers.append(dict(type='ConstantLR', factor=ratio, by_epoch=False, begin=0, end=warmup_iters))
        elif warmup is not None:
            report.by_hand('lr_config.warmup', warmup, NO_COUNTERPART)
        begin = 0 if by_epoch or warmup is None else warmup_iters
        end = max_epochs if by_epoch else max_iters
        policy, steps = options.take('policy'), options.take('step')
        if policy in ('step', 'Step') and isinstance(steps, list | tuple):
            scheduler = dict(type='MultiStepLR', by_epoch=by_epoch, begin=begin,
                             milestones=[step - begin for step in steps], **options.some('gamma'))
            if end is not None:
                scheduler['end'] = end
            schedulers.append(scheduler)
        elif policy != 'fixed':
            report.by_hand('lr_config', dict(official), f'policy={policy!r} {NO_COUNTERPART}; only the warm-up was '
                           'translated')
            options.rest()
        for name, value in options.rest().items():
            report.by_hand(f'lr_config.{name}', value, NO_COUNTERPART)
    return schedulers


def runtime_config(options: Options, evaluation: Mapping, scope: str, by_epoch: bool) -> dict[str, Any]:
    """Hooks, logging and environment, as the host's own default runtime has them.

    Args:
        options: The whole old config; what concerns the runtime is taken from it.
        evaluation: Its ``evaluation``.
        scope: ``'mmdet'`` or ``'mmseg'``.
        by_epoch: Whether the training counts epochs.
    """
    report = options.report
    prefix = dict(mmdet='Det', mmseg='Seg')[scope]
    log = dict(options.take('log_config') or {})
    backends, loggers = [dict(type='LocalVisBackend')], log.pop('hooks', [])
    for i, hook in enumerate(loggers):
        kind = bare_type(hook.get('type'))
        if kind == 'TensorboardLoggerHook':
            backends.append(dict(type='TensorboardVisBackend'))
        elif kind != 'TextLoggerHook':
            report.by_hand(f'log_config.hooks[{i}]', hook, NO_COUNTERPART)
    checkpoint = {'type': 'CheckpointHook', 'by_epoch': by_epoch, **(options.take('checkpoint_config') or {})}
    if 'save_best' in evaluation:
        checkpoint['save_best'] = evaluation['save_best']
    if checkpoint.pop('meta', None) is not None:
        report.drop('checkpoint_config.meta', '...', 'the classes are always saved')
    cfg: dict[str, Any] = dict(
        default_scope=scope,
        default_hooks=dict(
            timer=dict(type='IterTimerHook'),
            logger=dict(type='LoggerHook', interval=log.pop('interval', 50), log_metric_by_epoch=by_epoch),
            param_scheduler=dict(type='ParamSchedulerHook'),
            checkpoint=checkpoint,
            sampler_seed=dict(type='DistSamplerSeedHook'),
            visualization=dict(type=f'{prefix}VisualizationHook')),
        env_cfg=dict(
            cudnn_benchmark=options.take('cudnn_benchmark', False),
            mp_cfg=dict(mp_start_method=options.take('mp_start_method', 'fork'),
                        opencv_num_threads=options.take('opencv_num_threads', 0)),
            dist_cfg=dict(options.take('dist_params') or dict(backend='nccl'))),
        vis_backends=backends,
        visualizer=dict(type=f'{prefix}LocalVisualizer', vis_backends=backends, name='visualizer'),
        log_processor=dict(type='LogProcessor', window_size=50, by_epoch=by_epoch),
        log_level=options.take('log_level', 'INFO'))
    for name, value in log.items():
        report.by_hand(f'log_config.{name}', value, NO_COUNTERPART)
    resumed = options.take('resume_from')
    cfg |= dict(load_from=resumed or options.take('load_from'), resume=bool(resumed or options.take('auto_resume')))
    options.some('load_from')
    options.by_hand(['momentum_config', 'seed', 'deterministic', 'gpu_ids', 'device'], NO_COUNTERPART)
    workflow = options.take('workflow', [('train', 1)])
    if [tuple(step) for step in workflow] != [('train', 1)]:
        report.by_hand('workflow', workflow, NO_COUNTERPART)
    return cfg | options.some('find_unused_parameters', 'auto_scale_lr', 'work_dir') | _imports(options) \
        | _hooks(options, scope)


def _imports(options: Options) -> dict[str, Any]:
    """``custom_imports`` without the release's own modules, which register what is ours here."""
    given = dict(options.take('custom_imports') or {})
    modules = given.get('imports') or []
    modules = [modules] if isinstance(modules, str) else list(modules)
    ours = [module for module in modules if module.split('.')[0] in ('knet', 'swin')]
    if ours:
        options.report.drop('custom_imports.imports', ours, 'modules of the official release')
    given['imports'] = [module for module in modules if module not in ours]
    return dict(custom_imports=given) if given['imports'] else {}


def _hooks(options: Options, scope: str) -> dict[str, Any]:
    hooks = [dict(type='knet_plugin.ClassCheckHook')] if scope == 'mmdet' else []
    for i, hook in enumerate(options.take('custom_hooks') or []):
        if bare_type(hook.get('type')) == 'NumClassCheckHook':
            options.report.drop(f'custom_hooks[{i}]', hook, 'ClassCheckHook does it')
        else:
            options.report.by_hand(f'custom_hooks[{i}]', hook, NO_COUNTERPART)
    return dict(custom_hooks=hooks) if hooks else {}
