_base_ = './knet-s3_r101_fpn_ms-3x_coco-panoptic.py'

model = dict(
    backbone=dict(
        dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, True, True, True)))
