# A small K-Net for own data, which learns from a few hundred images in minutes on two CPU cores. The first layers of
# the backbone, whose backward pass costs most, stay as they are.
_base_ = ['../_base_/models/knet_r50_fpn.py', '../_base_/schedules/own_data.py', 'mmdet::_base_/default_runtime.py']

model = dict(
    data_preprocessor=dict(mean=[127, 127, 127], std=[128, 128, 128]),
    backbone=dict(_delete_=True, type='knet_plugin.EfficientNetLite0', frozen_stages=4, norm_eval=True),
    neck=dict(in_channels=[24, 40, 112, 320], out_channels=64),
    panoptic_head=dict(
        num_things_classes=1,
        kernel_head=dict(num_kernels=50, channels=64, norm_cfg=dict(type='GN', num_groups=8)),
        kernel_update_head=dict(interaction=dict(feedforward_channels=256))),
    test_cfg=dict(max_per_img=50))
# From scratch, the update stages learn best more slowly than what they read.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'kernel_update_head': dict(lr_mult=0.2)}))
default_hooks = dict(
    logger=dict(interval=10, log_metric_by_epoch=False), checkpoint=dict(by_epoch=False, interval=200))
log_processor = dict(by_epoch=False)
