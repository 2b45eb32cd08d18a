# The same for panoptic segmentation.
_base_ = './mask2former_effnet-lite0_instance.py'

model = dict(
    data_preprocessor=dict(pad_seg=True, seg_pad_value=255),
    panoptic_head=dict(num_queries=50),
    test_cfg=dict(panoptic_on=True, max_per_image=50))
