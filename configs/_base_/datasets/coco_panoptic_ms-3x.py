# COCO panoptic at scales from 640 to 800; an epoch shows every image three times.
_base_ = './coco_panoptic.py'

train_pipeline = _base_.train_pipeline
train_pipeline[2] = dict(type='RandomResize', scale=[(1333, 640), (1333, 800)], keep_ratio=True)
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='RepeatDataset',
        times=3,
        dataset=dict(_base_.train_dataloader.dataset, pipeline=train_pipeline)))
