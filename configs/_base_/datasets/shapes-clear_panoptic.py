# The clear variant of Shapes, which a small model learns in minutes. It is made by
# `python tools/make_shapes.py data/shapes_clear --ambiguity 0 --hue 1 --min-object 20`.
_base_ = './shapes_panoptic.py'

data_root = 'data/shapes_clear/'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader

# One test measures all three tasks.
val_evaluator = [
    dict(
        type='knet_plugin.PanopticMetric',
        ann_file=data_root + 'annotations/panoptic_val.json',
        seg_prefix=data_root + 'annotations/panoptic_val/'),
    dict(type='knet_plugin.InstanceMetric', ann_file=data_root + 'annotations/instances_val.json', metric='segm'),
    dict(type='SemSegMetric')
]
test_evaluator = val_evaluator
