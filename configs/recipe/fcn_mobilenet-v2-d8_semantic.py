# mmseg's FCN on MobileNetV2, a baseline for own data. docs/evidence.md compares it with itself plus K-Net.
_base_ = [
    '../_base_/plugin.py', 'mmseg::_base_/models/fcn_r50-d8.py', '../_base_/schedules/own_data.py',
    '../_base_/own_data_semantic_runtime.py'
]

batch_norm = dict(type='BN', requires_grad=True)
other_head = dict(  # what the heads of the other baselines have in common
    _delete_=True,
    channels=128,
    dropout_ratio=0.1,
    num_classes=19,
    norm_cfg=batch_norm,
    align_corners=False,
    loss_decode=dict(type='CrossEntropyLoss', loss_weight=1.0))
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=(256, 256), test_cfg=dict(size_divisor=32)),
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        strides=(1, 2, 2, 1, 1, 1, 1),
        dilations=(1, 1, 1, 2, 2, 4, 4),
        out_indices=(1, 2, 4, 6),
        norm_eval=True),
    decode_head=dict(in_channels=320, channels=128, norm_cfg=batch_norm),
    auxiliary_head=dict(in_channels=96, channels=64, norm_cfg=batch_norm))
