# mmdet's Mask2Former to compare the small K-Net for own data with: its backbone and widths, 3 decoder layers.
_base_ = [
    '../_base_/models/mask2former_r50.py', '../_base_/schedules/own_data.py', 'mmdet::_base_/default_runtime.py'
]

attention, ffn = dict(embed_dims=64), dict(embed_dims=64, feedforward_channels=256)
model = dict(
    data_preprocessor=dict(mean=[127, 127, 127], std=[128, 128, 128], batch_augments=None, pad_seg=False),
    backbone=dict(_delete_=True, type='knet_plugin.EfficientNetLite0', frozen_stages=4, norm_eval=True),
    panoptic_head=dict(
        num_things_classes=1,
        num_stuff_classes=0,
        in_channels=[24, 40, 112, 320],
        feat_channels=64,
        out_channels=64,
        num_queries=150,
        pixel_decoder=dict(
            norm_cfg=dict(num_groups=8),
            encoder=dict(layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)),
            positional_encoding=dict(num_feats=32)),
        positional_encoding=dict(num_feats=32),
        transformer_decoder=dict(
            num_layers=3, layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn)),
        loss_cls=dict(class_weight=[1.0, 0.1])),
    panoptic_fusion_head=dict(num_things_classes=1, num_stuff_classes=0),
    train_cfg=dict(num_points=4096),
    test_cfg=dict(panoptic_on=False, max_per_image=150))
