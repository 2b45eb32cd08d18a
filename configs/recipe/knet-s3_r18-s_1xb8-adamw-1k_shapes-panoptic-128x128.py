# The small K-Net for Shapes with what helps small models learn (docs/recipe.md).
_base_ = '../panoptic/knet-s3_r18-s_fpn_1xb8-adamw-1k_shapes-panoptic-128x128.py'

means = dict(type='knet_plugin.HardMask', area_normalized=True)
model = dict(
    panoptic_head=dict(
        kernel_head=dict(
            type='knet_plugin.CentreKernelHead', mask_activation=means, localization_fpn=dict(position_level=0)),
        kernel_update_head=dict(mask_activation=means, mask_branch=dict(residual=True))),
    test_cfg=dict(mask_scores=True))
