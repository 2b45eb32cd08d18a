# Shapes for panoptic segmentation in mmdet; `python tools/make_shapes.py data/shapes` makes the data.
# No photometric distortion, because the illumination of an image is a cue to its classes.
dataset_type = 'knet_plugin.PanopticDataset'
data_root = 'data/shapes/'
image_size = (128, 128)
metainfo = dict(
    classes=('warm_disk', 'cool_disk', 'warm_square', 'cool_square', 'ring', 'star', 'warm_stripes', 'cool_stripes',
             'warm_checks', 'cool_checks'),
    thing_classes=('warm_disk', 'cool_disk', 'warm_square', 'cool_square', 'ring', 'star'),
    stuff_classes=('warm_stripes', 'cool_stripes', 'warm_checks', 'cool_checks'),
    palette=[(230, 80, 50), (60, 110, 230), (250, 150, 30), (70, 190, 220), (160, 70, 190), (110, 200, 60),
             (220, 190, 150), (150, 170, 210), (140, 90, 60), (60, 80, 120)])

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadPanopticAnnotations', with_bbox=True, with_mask=True, with_seg=True),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='LoadPanopticAnnotations'),
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
        ann_file='annotations/panoptic_train.json',
        data_prefix=dict(img='train/', seg='annotations/panoptic_train/'),
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
        ann_file='annotations/panoptic_val.json',
        data_prefix=dict(img='val/', seg='annotations/panoptic_val/'),
        metainfo=metainfo,
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(
    type='knet_plugin.PanopticMetric',
    ann_file=data_root + 'annotations/panoptic_val.json',
    seg_prefix=data_root + 'annotations/panoptic_val/')
test_evaluator = val_evaluator
