# OCRNet, with K-Net.
_base_ = ['../../_base_/plugin.py', 'mmseg::ocrnet/ocrnet_hr18_4xb4-80k_ade20k-512x512.py']

model = dict(
    decode_head=[_base_.model.decode_head[0], dict(
        type='knet_plugin.IterativeDecodeHead',
        num_stages=3,
        kernel_generate_head=_base_.model.decode_head[1])])
