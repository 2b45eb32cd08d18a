# mmdet's COCO panoptic, with loading transforms whose errors name the file; one test measures PQ, AP and mIoU.
_base_ = ['../plugin.py', 'mmdet::_base_/datasets/coco_panoptic.py']

train_pipeline = _base_.train_pipeline
train_pipeline[0].update(type='knet_plugin.LoadImageFromFile')
train_pipeline[1].update(type='knet_plugin.LoadPanopticAnnotations')
test_pipeline = _base_.test_pipeline
test_pipeline[2].update(type='knet_plugin.LoadPanopticAnnotations')
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = [
    _base_.val_evaluator,
    dict(type='CocoMetric', ann_file='data/coco/annotations/instances_val2017.json', metric=['segm', 'bbox']),
    dict(type='SemSegMetric')
]
test_evaluator = val_evaluator
