# mmseg's DeepLabV3+ on MobileNetV2, a baseline for own data.
_base_ = './fcn_mobilenet-v2-d8_semantic.py'

model = dict(
    decode_head=dict(
        _base_.other_head,
        type='DepthwiseSeparableASPPHead',
        in_channels=320,
        in_index=3,
        dilations=(1, 12, 24, 36),
        c1_in_channels=24,
        c1_channels=48))
