_base_ = [
    '../_base_/plugin.py', 'mmseg::_base_/models/upernet_swin.py', 'mmseg::_base_/datasets/ade20k.py',
    'mmseg::_base_/default_runtime.py', '../_base_/schedules/adamw-80k.py', '../_base_/data_check.py'
]

checkpoint = 'https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/swin/swin_tiny_patch4_window7_224_20220308-f41b89d3.pth'  # noqa: E501
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    decode_head=dict(
        _delete_=True,
        type='knet_plugin.IterativeDecodeHead',
        num_stages=3,
        # 256 channels, as in the release; the stock config has 512.
        kernel_generate_head=dict(_base_.model.decode_head, num_classes=150, channels=256)),
    auxiliary_head=dict(num_classes=150))
train_dataloader = dict(batch_size=2, num_workers=2)

optim_wrapper = dict(
    optimizer=dict(lr=0.00006),
    paramwise_cfg=dict(
        custom_keys=dict(
            absolute_pos_embed=dict(decay_mult=0.),
            relative_position_bias_table=dict(decay_mult=0.),
            norm=dict(decay_mult=0.))))
