# Finds nuclei in microscope images: what `knet demo` shows unless another model is given. `nuclei.pth` has its weights
# as float16: 200 iterations of `knet train --data` on 428 images of BBBC038v1 (CC0), mask AP 31.5 on 107 others, from a
# backbone that was trained on ImageNet.
_base_ = '../../configs/recipe/knet-s3-centres_effnet-lite0_instance.py'

model = dict(
    backbone=dict(init_cfg=None),
    panoptic_head=dict(num_things_classes=1, mask_upsample=1))
test_dataloader = dict(dataset=dict(
    type='knet_plugin.InstanceDataset',
    metainfo=dict(classes=('nucleus', ), palette=[(255, 72, 72)]),
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(512, 256), keep_ratio=True),
        dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
    ]))
