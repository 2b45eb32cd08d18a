# CGNet, with K-Net.
_base_ = ['../../_base_/plugin.py', 'mmseg::cgnet/cgnet_fcn_4xb8-60k_cityscapes-512x1024.py']

model = dict(
    decode_head=dict(
        _delete_=True, type='knet_plugin.IterativeDecodeHead',
        num_stages=3,
        kernel_generate_head=_base_.model.decode_head))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'kernel_update_head': {'lr_mult': 0.1}}))
