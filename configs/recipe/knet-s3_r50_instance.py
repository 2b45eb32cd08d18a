# The published K-Net on own data, with activation checkpointing: a training step takes 0.6 times the memory and 1.2 times
# the time (docs/benchmarks.md). With enough memory, set both with_cp to False.
_base_ = ['../_base_/models/knet_r50_fpn.py', '../_base_/schedules/own_data.py', 'mmdet::_base_/default_runtime.py']

model = dict(backbone=dict(with_cp=True), panoptic_head=dict(num_things_classes=1, with_cp=True))
optim_wrapper = dict(optimizer=dict(lr=0.0001))
default_hooks = dict(
    logger=dict(interval=10, log_metric_by_epoch=False), checkpoint=dict(by_epoch=False, interval=200))
log_processor = dict(by_epoch=False)
visualizer = dict(_delete_=True, type='knet_plugin.Visualizer', vis_backends=[dict(type='LocalVisBackend')])
