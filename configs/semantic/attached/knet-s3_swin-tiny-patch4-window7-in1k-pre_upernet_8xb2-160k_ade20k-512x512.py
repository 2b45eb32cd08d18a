# Swin UPerNet, with K-Net.
_base_ = ['../../_base_/plugin.py', 'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py']

model = dict(
    decode_head=dict(
        _delete_=True, type='knet_plugin.IterativeDecodeHead',
        num_stages=3,
        kernel_generate_head=_base_.model.decode_head))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'kernel_update_head': {'lr_mult': 1.7}}))
