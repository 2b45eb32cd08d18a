# Overfit a few images of COCO (133 classes) from scratch on a CPU, for all three tasks. REAL_IMAGES is their folder.
_base_ = '../../configs/panoptic/knet-s3_r18-s_fpn_1xb8-adamw-1k_shapes-panoptic-128x128.py'

data_root = '{{$REAL_IMAGES:data/coco}}/'
scale = (432, 288)
load = [dict(type='LoadImageFromFile'), dict(type='knet_plugin.LoadPanopticAnnotations')]
resize = dict(type='Resize', scale=scale, keep_ratio=True)
pack = dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
dataset = dict(
    _delete_=True,
    type='CocoPanopticDataset',
    data_root=data_root,
    ann_file='annotations/panoptic.json',
    data_prefix=dict(img='images/', seg='annotations/panoptic/'))
train_dataloader = dict(
    batch_size=2, num_workers=1, sampler=dict(type='InfiniteSampler'),
    dataset=dict(pipeline=[*load, resize, pack], **dataset))
val_dataloader = dict(
    batch_size=1, num_workers=1, dataset=dict(pipeline=[load[0], resize, load[1], pack], test_mode=True, **dataset))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='CocoPanopticMetric', ann_file=data_root + 'annotations/panoptic.json',
         seg_prefix=data_root + 'annotations/panoptic/'),
    dict(type='CocoMetric', ann_file=data_root + 'annotations/instances.json', metric='segm'),
    dict(type='SemSegMetric')
]
test_evaluator = val_evaluator

model = dict(
    panoptic_head=dict(
        num_things_classes=80, num_stuff_classes=53, kernel_head=dict(num_kernels=50)),
    test_cfg=dict(max_per_img=100))
