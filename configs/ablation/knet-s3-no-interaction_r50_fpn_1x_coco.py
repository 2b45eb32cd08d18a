# Table 4a: adaptive update without interaction.
_base_ = '../instance/knet-s3_r50_fpn_1x_coco.py'

model = dict(panoptic_head=dict(kernel_update_head=dict(interaction=None)))
