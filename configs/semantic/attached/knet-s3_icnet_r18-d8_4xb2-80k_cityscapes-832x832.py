# ICNet, with K-Net.
_base_ = ['../../_base_/plugin.py', 'mmseg::icnet/icnet_r18-d8_4xb2-80k_cityscapes-832x832.py']

model = dict(
    decode_head=dict(
        _delete_=True, type='knet_plugin.IterativeDecodeHead',
        num_stages=3,
        kernel_generate_head=_base_.model.decode_head))
