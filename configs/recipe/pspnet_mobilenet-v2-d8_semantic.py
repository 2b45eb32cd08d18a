# mmseg's PSPNet on MobileNetV2, a baseline for own data.
_base_ = './fcn_mobilenet-v2-d8_semantic.py'

model = dict(
    decode_head=dict(
        _base_.other_head,
        type='PSPHead',
        in_channels=320,
        in_index=3,
        pool_scales=(1, 2, 3, 6)))
