# Shapes for instance segmentation in mmdet; `python tools/make_shapes.py data/shapes` makes the data.
# No photometric distortion, because the illumination of an image is a cue to its classes.
# Training keeps images without objects, as negative examples.
dataset_type = 'knet_plugin.InstanceDataset'
data_root = 'data/shapes/'
image_size = (128, 128)
metainfo = dict(
    classes=('warm_disk', 'cool_disk', 'warm_square', 'cool_square', 'ring', 'star'),
    palette=[(230, 80, 50), (60, 110, 230), (250, 150, 30), (70, 190, 220), (160, 70, 190), (110, 200, 60)])

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
]

train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train/'),
        metainfo=metainfo,
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='val/'),
        metainfo=metainfo,
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(
    type='knet_plugin.InstanceMetric', ann_file=data_root + 'annotations/instances_val.json', metric=['segm'])
test_evaluator = val_evaluator
