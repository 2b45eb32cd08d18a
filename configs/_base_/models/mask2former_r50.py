# mmdet's Mask2Former. mmdet has no base file with this model alone: it is taken out of a whole config for COCO.
_base_ = '../plugin.py'

# Below _base_, since mmengine reads a file that imports first as one of its lazy configs.
from mmengine.hub import get_config

model = get_config('mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py').model.to_dict()
