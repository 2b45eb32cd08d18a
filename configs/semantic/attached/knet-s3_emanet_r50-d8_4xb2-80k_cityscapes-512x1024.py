# EMANet, with K-Net.
_base_ = ['../../_base_/plugin.py', 'mmseg::emanet/emanet_r50-d8_4xb2-80k_cityscapes-512x1024.py']

model = dict(
    decode_head=dict(
        _delete_=True, type='knet_plugin.IterativeDecodeHead',
        num_stages=3,
        kernel_generate_head=_base_.model.decode_head))
