# mmdet's COCO instances, with loading transforms whose errors name the file.
_base_ = ['../plugin.py', 'mmdet::_base_/datasets/coco_instance.py']

train_pipeline = _base_.train_pipeline
train_pipeline[0].update(type='knet_plugin.LoadImageFromFile')
train_pipeline[1].update(type='knet_plugin.LoadAnnotations')
test_pipeline = _base_.test_pipeline
test_pipeline[2].update(type='knet_plugin.LoadAnnotations')
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
