# A K-Net with a Swin-T for own data and a GPU.
_base_ = './knet-s3_swin-t_instance.py'

model = dict(
    data_preprocessor=dict(pad_seg=True, seg_pad_value=255),
    panoptic_head=dict(
        num_stuff_classes=1,
        criterion=dict(loss_rank=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False, loss_weight=0.1))),
    test_cfg=dict(panoptic_on=True, semantic_on=True, instance_score_thr=0.3, overlap_thr=0.6))
