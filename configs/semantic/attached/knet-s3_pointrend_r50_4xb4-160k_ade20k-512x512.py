# PointRend, with K-Net.
_base_ = ['../../_base_/plugin.py', 'mmseg::point_rend/pointrend_r50_4xb4-160k_ade20k-512x512.py']

model = dict(
    decode_head=[dict(
        type='knet_plugin.IterativeDecodeHead',
        num_stages=3,
        kernel_generate_head=_base_.model.decode_head[0]), _base_.model.decode_head[1]])
