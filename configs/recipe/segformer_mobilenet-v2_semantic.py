# mmseg's SegFormer head on MobileNetV2, a baseline for own data.
_base_ = './upernet_mobilenet-v2_semantic.py'

model = dict(
    decode_head=dict(
        _base_.other_head,
        type='SegformerHead',
        in_channels=[24, 32, 96, 320],
        in_index=[0, 1, 2, 3]),
    auxiliary_head=None)
