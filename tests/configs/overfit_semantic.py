# Overfit a few images of ADE20K from scratch on a CPU. REAL_IMAGES is their folder.
_base_ = '../../configs/semantic/knet-s3_r18-s_fcn_1xb8-adamw-1k_shapes-128x128.py'

scale = (768, 192)  # longer and shorter side at most
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs')
]
train_pipeline = [pipeline[0], pipeline[2], pipeline[1], pipeline[3]]
dataset = dict(
    _delete_=True,
    type='ADE20KDataset',
    data_root='{{$REAL_IMAGES:data/ade20k}}',
    data_prefix=dict(img_path='images', seg_map_path='annotations'))
train_dataloader = dict(batch_size=3, num_workers=1, dataset=dict(pipeline=train_pipeline, **dataset))
val_dataloader = dict(batch_size=1, num_workers=1, dataset=dict(pipeline=pipeline, **dataset))
test_dataloader = val_dataloader

model = dict(
    data_preprocessor=dict(_delete_=True, type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53],
                           std=[58.395, 57.12, 57.375], bgr_to_rgb=True, pad_val=0, seg_pad_val=255, size_divisor=32,
                           test_cfg=dict(size_divisor=32)),
    backbone=dict(strides=(1, 1)),
    decode_head=dict(kernel_generate_head=dict(num_classes=150)))
optim_wrapper = dict(optimizer=dict(lr=0.002, weight_decay=0.))
