# K-Net for panoptic segmentation; instances and the semantic map come out of the same pass.
_base_ = './knet_r50_fpn.py'

model = dict(
    data_preprocessor=dict(pad_seg=True, seg_pad_value=255),
    panoptic_head=dict(
        num_stuff_classes=53,
        criterion=dict(loss_rank=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False, loss_weight=0.1))),
    test_cfg=dict(panoptic_on=True, semantic_on=True, instance_score_thr=0.3, overlap_thr=0.6))
