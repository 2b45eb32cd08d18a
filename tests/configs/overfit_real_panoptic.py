# Learn a handful of real images by heart, from scratch, on a CPU. The folder is set from outside.
_base_ = '../../configs/panoptic/knet-s3_r18-s_fpn_1xb8-adamw-1k_shapes-panoptic-128x128.py'

