# PIDNet, with K-Net.
_base_ = ['../../_base_/plugin.py', 'mmseg::pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py']

model = dict(
    decode_head=dict(
        _delete_=True, type='knet_plugin.IterativeDecodeHead',
        num_stages=3,
        kernel_generate_head=_base_.model.decode_head))
