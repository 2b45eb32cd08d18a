_base_ = [
    '../_base_/models/knet_r50_fpn.py', '../_base_/datasets/coco_instance_ms-3x.py',
    '../_base_/schedules/adamw-3x.py', 'mmdet::_base_/default_runtime.py'
]
