# DDRNet, with K-Net.
_base_ = ['../../_base_/plugin.py', 'mmseg::ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024.py']

model = dict(
    decode_head=dict(
        _delete_=True, type='knet_plugin.IterativeDecodeHead',
        num_stages=3,
        kernel_generate_head=_base_.model.decode_head))
