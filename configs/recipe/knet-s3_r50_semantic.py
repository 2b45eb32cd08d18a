# The published K-Net on own data, with batch norms that also work on one small batch.
_base_ = [
    '../_base_/plugin.py', 'mmseg::_base_/models/fcn_r50-d8.py', '../_base_/schedules/own_data.py',
    '../_base_/own_data_semantic_runtime.py'
]

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    data_preprocessor=dict(size=(256, 256), test_cfg=dict(size_divisor=32)),
    backbone=dict(norm_cfg=norm_cfg, norm_eval=True),
    decode_head=dict(
        _delete_=True,
        type='knet_plugin.IterativeDecodeHead',
        num_stages=3,
        kernel_generate_head=dict(_base_.model.decode_head, norm_cfg=norm_cfg, num_classes=2)),
    auxiliary_head=dict(norm_cfg=norm_cfg, num_classes=2))
optim_wrapper = dict(optimizer=dict(lr=0.0001))
