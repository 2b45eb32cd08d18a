_base_ = './knet-s3_r50_fpn_ms-3x_coco.py'

model = dict(panoptic_head=dict(kernel_head=dict(num_kernels=256)))
