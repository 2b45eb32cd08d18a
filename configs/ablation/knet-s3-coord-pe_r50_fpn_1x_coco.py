# Table 4b: coordinates and positional encoding.
_base_ = '../instance/knet-s3_r50_fpn_1x_coco.py'

model = dict(panoptic_head=dict(kernel_head=dict(localization_fpn=dict(coordinates=True))))
