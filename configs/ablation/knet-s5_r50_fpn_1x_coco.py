# Table 4c: number of update stages.
_base_ = '../instance/knet-s3_r50_fpn_1x_coco.py'

model = dict(panoptic_head=dict(num_stages=5))
