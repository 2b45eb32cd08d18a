# Table 4a: interaction without adaptive update.
_base_ = '../instance/knet-s3_r50_fpn_1x_coco.py'

model = dict(panoptic_head=dict(kernel_update_head=dict(updater=None)))
