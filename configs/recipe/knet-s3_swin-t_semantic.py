# K-Net on UPerNet with a Swin-T, for own data and a GPU. Group norms in the heads also work on one small batch.
_base_ = [
    '../_base_/plugin.py', 'mmseg::_base_/models/upernet_swin.py', '../_base_/schedules/own_data.py',
    '../_base_/own_data_semantic_runtime.py'
]

checkpoint = 'https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/swin/swin_tiny_patch4_window7_224_20220308-f41b89d3.pth'  # noqa: E501
norm_cfg = dict(type='GN', num_groups=32, requires_grad=True)
model = dict(
    data_preprocessor=dict(size=(256, 256), test_cfg=dict(size_divisor=32)),
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    decode_head=dict(
        _delete_=True,
        type='knet_plugin.IterativeDecodeHead',
        num_stages=3,
        kernel_generate_head=dict(_base_.model.decode_head, norm_cfg=norm_cfg, channels=256, num_classes=2)),
    auxiliary_head=dict(norm_cfg=norm_cfg, num_classes=2))
optim_wrapper = dict(
    optimizer=dict(lr=0.0005), paramwise_cfg=dict(custom_keys={'kernel_update_head': dict(lr_mult=0.2)}))
