# COCO instances as in mmdet, read by data sets and metrics that take files as people have them.
_base_ = ['../plugin.py', 'mmdet::_base_/datasets/coco_instance.py']

dataset_type = 'knet_plugin.InstanceDataset'
train_pipeline = _base_.train_pipeline
train_pipeline[0].update(type='knet_plugin.LoadImageFromFile')
train_dataloader = dict(dataset=dict(type=dataset_type, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(type=dataset_type))
test_dataloader = val_dataloader

val_evaluator = dict(type='knet_plugin.InstanceMetric')
test_evaluator = val_evaluator
