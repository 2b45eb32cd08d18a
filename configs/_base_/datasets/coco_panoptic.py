# COCO panoptic as in mmdet, read by data sets and metrics that take files as people have them; one test measures PQ, AP
# and mIoU.
_base_ = ['../plugin.py', 'mmdet::_base_/datasets/coco_panoptic.py']

dataset_type = 'knet_plugin.PanopticDataset'
train_pipeline = _base_.train_pipeline
train_pipeline[0].update(type='knet_plugin.LoadImageFromFile')
train_pipeline[1].update(type='knet_plugin.LoadPanopticAnnotations')
test_pipeline = _base_.test_pipeline
test_pipeline[2].update(type='knet_plugin.LoadPanopticAnnotations')
train_dataloader = dict(dataset=dict(type=dataset_type, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(type=dataset_type, pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = [
    dict(_base_.val_evaluator, type='knet_plugin.PanopticMetric'),
    dict(
        type='knet_plugin.InstanceMetric',
        ann_file='data/coco/annotations/instances_val2017.json',
        metric=['segm', 'bbox']),
    dict(type='SemSegMetric')
]
test_evaluator = val_evaluator
