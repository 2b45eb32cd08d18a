# STDC, with K-Net.
_base_ = ['../../_base_/plugin.py', 'mmseg::stdc/stdc1_4xb12-80k_cityscapes-512x1024.py']

model = dict(
    decode_head=dict(
        _delete_=True, type='knet_plugin.IterativeDecodeHead',
        num_stages=3,
        kernel_generate_head=_base_.model.decode_head))
