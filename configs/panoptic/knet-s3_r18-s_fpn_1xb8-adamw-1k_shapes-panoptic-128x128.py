# A small K-Net that learns Shapes in minutes on two CPU cores. Features have stride 4 because the images are small.
_base_ = [
    '../_base_/models/knet_r50_fpn_panoptic.py', '../_base_/datasets/shapes-clear_panoptic.py',
    '../_base_/schedules/adamw-1k.py', 'mmdet::_base_/default_runtime.py'
]

model = dict(
    backbone=dict(depth=18, base_channels=32, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
    panoptic_head=dict(
        num_things_classes=6,
        num_stuff_classes=4,
        kernel_head=dict(
            num_kernels=20,
            channels=64,
            norm_cfg=dict(type='GN', num_groups=8),
            localization_fpn=dict(output_level=0)),
        kernel_update_head=dict(interaction=dict(feedforward_channels=256))),
    test_cfg=dict(max_per_img=20))
# From scratch, the update stages learn best more slowly than what they read.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'kernel_update_head': dict(lr_mult=0.2)}))
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=1000), logger=dict(log_metric_by_epoch=False))
log_processor = dict(by_epoch=False)
