# For many small objects: kernels start as discs around likely centres of objects in each image.
_base_ = './knet-s3_swin-t_panoptic.py'

model = dict(
    panoptic_head=dict(kernel_head=dict(type='knet_plugin.CentreKernelHead', num_kernels=150)),
    test_cfg=dict(max_per_img=150))
