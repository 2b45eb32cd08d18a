# K-Net on K-Net, with K-Net.
_base_ = ['../../_base_/plugin.py', 'mmseg::knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py']

model = dict(
    decode_head=dict(
        _delete_=True, type='knet_plugin.IterativeDecodeHead',
        num_stages=6,
        kernel_generate_head=_base_.model.decode_head.kernel_generate_head))
