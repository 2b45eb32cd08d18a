_base_ = './knet-s3_swin-l_upernet_8xb2-adamw-80k_ade20k-512x512.py'

crop_size = (640, 640)
model = dict(data_preprocessor=dict(size=crop_size), backbone=dict(drop_path_rate=0.4))

train_pipeline = _base_.train_pipeline
train_pipeline[2].update(scale=(2048, 640))
train_pipeline[3].update(crop_size=crop_size)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=(2048, 640))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
