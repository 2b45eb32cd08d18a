# The plain baseline that the small K-Net starts from.
_base_ = [
    '../_base_/plugin.py', '../_base_/models/fcn_r18-s.py', '../_base_/datasets/shapes_semantic.py',
    'mmseg::_base_/default_runtime.py', '../_base_/schedules/adamw-1k.py', '../_base_/data_check.py'
]

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1000),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'))
