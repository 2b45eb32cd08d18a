_base_ = [
    '../_base_/plugin.py', 'mmseg::_base_/models/fcn_r50-d8.py', 'mmseg::_base_/datasets/ade20k.py',
    'mmseg::_base_/default_runtime.py', '../_base_/schedules/adamw-80k.py', '../_base_/data_check.py'
]

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    decode_head=dict(
        _delete_=True,
        type='knet_plugin.IterativeDecodeHead',
        num_stages=3,
        kernel_generate_head=dict(_base_.model.decode_head, num_classes=150)),
    auxiliary_head=dict(num_classes=150))
train_dataloader = dict(batch_size=2, num_workers=2)
