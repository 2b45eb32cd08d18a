# Table 4d: number of instance kernels.
_base_ = '../instance/knet-s3_r50_fpn_1x_coco.py'

model = dict(panoptic_head=dict(kernel_head=dict(num_kernels=50)))
