# mmseg's UPerNet on MobileNetV2, a baseline for own data.
_base_ = './fcn_mobilenet-v2-d8_semantic.py'

model = dict(
    backbone=dict(strides=(1, 2, 2, 2, 1, 2, 1), dilations=(1, ) * 7),
    decode_head=dict(
        _base_.other_head,
        type='UPerHead',
        in_channels=[24, 32, 96, 320],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6)))
