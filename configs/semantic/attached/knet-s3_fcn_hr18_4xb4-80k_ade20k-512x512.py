# HRNet, with K-Net.
_base_ = ['../../_base_/plugin.py', 'mmseg::hrnet/fcn_hr18_4xb4-80k_ade20k-512x512.py']

model = dict(
    decode_head=dict(
        _delete_=True, type='knet_plugin.IterativeDecodeHead',
        num_stages=3,
        kernel_generate_head=_base_.model.decode_head))
