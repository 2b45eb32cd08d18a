# A small K-Net for own data, which learns from a few hundred images in minutes on two CPU cores. It differs from the
# published model where a short training gains by it:
# - Group features are means over the mask instead of sums, and positions are added at stride 4 instead of 32. Otherwise
#   the kernels stay alike for long: all of them find the same object, and none gets a high score.
# - Stages refine the masks of the stage before instead of finding them anew.
# - Classes start at a probability of 0.1 instead of 0.01, because there are few kernels and classes.
# - Features have stride 4, like the masks of loss and prediction.
# - The score of an instance is its class score times the certainty of its mask.
# - The first layers of the backbone, whose backward pass costs most, stay as they are.
_base_ = ['../_base_/models/knet_r50_fpn.py', '../_base_/schedules/own_data.py', 'mmdet::_base_/default_runtime.py']

model = dict(
    data_preprocessor=dict(mean=[127, 127, 127], std=[128, 128, 128]),
    backbone=dict(_delete_=True, type='knet_plugin.EfficientNetLite0', frozen_stages=4, norm_eval=True),
    neck=dict(in_channels=[24, 40, 112, 320], out_channels=64),
    panoptic_head=dict(
        num_things_classes=1,
        mask_upsample=1,
        kernel_head=dict(
            num_kernels=50,
            channels=64,
            norm_cfg=dict(type='GN', num_groups=8),
            localization_fpn=dict(output_level=0, position_level=0),
            mask_activation=dict(type='knet_plugin.HardMask', area_normalized=True),
            init_cfg=dict(
                type='Normal',
                layer='Conv2d',
                std=0.01,
                override=[
                    dict(type='Normal', name='init_kernels', std=1),
                    dict(type='Normal', name='conv_seg', std=0.01, bias_prob=0.1)
                ])),
        kernel_update_head=dict(
            mask_activation=dict(type='knet_plugin.HardMask', area_normalized=True),
            mask_branch=dict(residual=True),
            interaction=dict(feedforward_channels=256),
            classifier=dict(
                init_cfg=dict(
                    type='Xavier',
                    layer='Linear',
                    distribution='uniform',
                    override=dict(type='Xavier', name='fc_cls', distribution='uniform', bias_prob=0.1))))),
    test_cfg=dict(max_per_img=50, mask_scores=True))
optim_wrapper = dict(
    optimizer=dict(lr=0.002), paramwise_cfg=dict(custom_keys={'kernel_update_head': dict(lr_mult=0.2)}))
default_hooks = dict(
    logger=dict(interval=10, log_metric_by_epoch=False), checkpoint=dict(by_epoch=False, interval=200))
log_processor = dict(by_epoch=False)
visualizer = dict(_delete_=True, type='knet_plugin.Visualizer', vis_backends=[dict(type='LocalVisBackend')])
