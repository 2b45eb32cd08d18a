# mmdet's Mask R-CNN to compare the small K-Net with: its backbone and widths, anchors for objects of 20 to 90 pixels.
_base_ = [
    '../_base_/plugin.py', 'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/shapes-clear_instance.py', '../_base_/schedules/adamw-1k.py',
    'mmdet::_base_/default_runtime.py', '../_base_/data_check.py'
]

model = dict(
    backbone=dict(depth=18, base_channels=32, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=6),
        mask_roi_extractor=dict(out_channels=64),
        mask_head=dict(in_channels=64, conv_out_channels=64, num_classes=6)))
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=1000), logger=dict(log_metric_by_epoch=False))
log_processor = dict(by_epoch=False)
