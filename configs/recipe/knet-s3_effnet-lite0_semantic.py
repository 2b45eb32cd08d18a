# A small K-Net on a semantic FPN, for own data. Stages refine the masks of the stage before. The backbone needs mmdet.
_base_ = ['../_base_/plugin.py', '../_base_/schedules/own_data.py', '../_base_/own_data_semantic_runtime.py']

model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[127, 127, 127],
        std=[128, 128, 128],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(256, 256),
        test_cfg=dict(size_divisor=32)),
    backbone=dict(type='knet_plugin.EfficientNetLite0', frozen_stages=4, norm_eval=True),
    neck=dict(type='FPN', in_channels=[24, 40, 112, 320], out_channels=64, num_outs=4),
    decode_head=dict(
        type='knet_plugin.IterativeDecodeHead',
        num_stages=3,
        kernel_update_head=dict(interaction=dict(feedforward_channels=256), mask_branch=dict(residual=True)),
        kernel_generate_head=dict(
            type='FPNHead',
            in_channels=[64, 64, 64, 64],
            in_index=[0, 1, 2, 3],
            feature_strides=[4, 8, 16, 32],
            channels=64,
            dropout_ratio=0.1,
            num_classes=2,
            norm_cfg=dict(type='GN', num_groups=8, requires_grad=True),
            align_corners=False,
            loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True))),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
