# Shapes for semantic segmentation in mmseg; `python tools/make_shapes.py data/shapes` makes the data.
# No photometric distortion, because the illumination of an image is a cue to its classes.
dataset_type = 'BaseSegDataset'
data_root = 'data/shapes/'
image_size = (128, 128)
metainfo = dict(
    classes=('warm_disk', 'cool_disk', 'warm_square', 'cool_square', 'ring', 'star', 'warm_stripes', 'cool_stripes',
             'warm_checks', 'cool_checks'),
    palette=[(230, 80, 50), (60, 110, 230), (250, 150, 30), (70, 190, 220), (160, 70, 190), (110, 200, 60),
             (220, 190, 150), (150, 170, 210), (140, 90, 60), (60, 80, 120)])

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    # After Resize, because results are compared at the original size.
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs')
]

train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='train', seg_map_path='annotations/semantic_train'),
        metainfo=metainfo,
        reduce_zero_label=True,
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='val', seg_map_path='annotations/semantic_val'),
        metainfo=metainfo,
        reduce_zero_label=True,
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
