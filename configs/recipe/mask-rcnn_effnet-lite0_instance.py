# mmdet's Mask R-CNN to compare the small K-Net for own data with: its backbone and widths, anchors from 8 pixels.
_base_ = [
    '../_base_/plugin.py', 'mmdet::_base_/models/mask-rcnn_r50_fpn.py', '../_base_/schedules/own_data.py',
    'mmdet::_base_/default_runtime.py'
]

model = dict(
    data_preprocessor=dict(mean=[127, 127, 127], std=[128, 128, 128]),
    backbone=dict(_delete_=True, type='knet_plugin.EfficientNetLite0', frozen_stages=4, norm_eval=True),
    neck=dict(in_channels=[24, 40, 112, 320], out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[2])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=1),
        mask_roi_extractor=dict(out_channels=64),
        mask_head=dict(in_channels=64, conv_out_channels=64, num_classes=1)),
    test_cfg=dict(rcnn=dict(max_per_img=150)))
