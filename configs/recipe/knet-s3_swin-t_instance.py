# A K-Net with a Swin-T for own data and a GPU. The head starts from random weights, so it is that of the small model,
# which learns from few images, at the published width. Its stages learn at the published rate, 1e-4. Activation
# checkpointing (with_cp) saves memory and costs time. The backbone needs mmseg, which publishes its weights.
_base_ = './knet-s3_effnet-lite0_instance.py'

checkpoint = 'https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/swin/swin_tiny_patch4_window7_224_20220308-f41b89d3.pth'  # noqa: E501
model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(
        _delete_=True,
        type='mmseg.SwinTransformer',
        embed_dims=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        drop_path_rate=0.2,
        with_cp=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[96, 192, 384, 768], out_channels=256),
    panoptic_head=dict(
        with_cp=True,
        kernel_head=dict(num_kernels=100, channels=256, norm_cfg=dict(num_groups=32)),
        kernel_update_head=dict(interaction=dict(feedforward_channels=2048))),
    test_cfg=dict(max_per_img=100))
optim_wrapper = dict(optimizer=dict(lr=0.0005))
