# K-Net for instance segmentation: mmdet's R-50 and FPN, then the published kernels.
_base_ = ['../plugin.py', 'mmdet::_base_/models/mask-rcnn_r50_fpn.py']

model = dict(
    _delete_=True,
    type='knet_plugin.KNet',
    data_preprocessor=_base_.model.data_preprocessor,
    backbone=_base_.model.backbone,
    neck=dict(_base_.model.neck, num_outs=4),
    panoptic_head=dict(
        type='knet_plugin.KernelIterHead',
        num_things_classes=80,
        num_stuff_classes=0,
        num_stages=3,
        kernel_head=dict(num_kernels=100)),
    train_cfg=dict(assigner=dict(type='knet_plugin.MaskHungarianAssigner')),
    test_cfg=dict(panoptic_on=False, instance_on=True, max_per_img=100))
custom_hooks = [dict(type='knet_plugin.DataCheckHook')]
