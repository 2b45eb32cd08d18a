# K-Net on K-Net, with K-Net.
_base_ = ['../../_base_/plugin.py', 'mmseg::knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py']

model = dict(
    decode_head=dict(
        _delete_=True, type='knet_plugin.IterativeDecodeHead',
        num_stages=6,
        kernel_generate_head=_base_.model.decode_head.kernel_generate_head,
        kernel_update_head={'type': 'knet_plugin.KernelUpdateHead',
         'channels': 512,
         'kernel_size': 1,
         'mask_activation': {'type': 'knet_plugin.SoftmaxMask'},
         'updater': {'type': 'knet_plugin.KernelUpdater', 'group_channels': 256},
         'interaction': {'type': 'knet_plugin.KernelInteraction',
                         'num_heads': 8,
                         'feedforward_channels': 2048,
                         'num_fcs': 2,
                         'dropout': 0.0},
         'classifier': None,
         'feat_transform': True,
         'mask_branch': {'num_fcs': 1, 'stride': 1}}))
