_base_ = [
    '../_base_/models/knet_r50_fpn.py', '../_base_/datasets/coco_instance.py', '../_base_/schedules/adamw-1x.py',
    'mmdet::_base_/default_runtime.py'
]
