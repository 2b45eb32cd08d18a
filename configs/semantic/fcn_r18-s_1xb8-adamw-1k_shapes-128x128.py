# The plain baseline that the small K-Net starts from.
_base_ = [
    '../_base_/plugin.py', '../_base_/models/fcn_r18-s.py', '../_base_/datasets/shapes_semantic.py',
    'mmseg::_base_/default_runtime.py', '../_base_/schedules/adamw-1k.py'
]
