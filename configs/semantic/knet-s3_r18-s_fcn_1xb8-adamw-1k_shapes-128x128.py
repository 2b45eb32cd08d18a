_base_ = './fcn_r18-s_1xb8-adamw-1k_shapes-128x128.py'

model = dict(
    decode_head=dict(
        _delete_=True,
        type='knet_plugin.IterativeDecodeHead',
        num_stages=3,
        kernel_update_head=dict(interaction=dict(feedforward_channels=256)),
        kernel_generate_head=_base_.model.decode_head))
