# Mask2Former's pixel decoder in place of FPN and localisation FPN. Features have stride 4 instead of 8.
_base_ = './knet-s3_r50_panoptic.py'

# Below _base_, since mmengine reads a file that imports first as one of its lazy configs.
from mmengine.hub import get_config

model = dict(
    neck=None,
    panoptic_head=dict(
        kernel_head=dict(
            localization_fpn=dict(
                type='knet_plugin.PixelDecoderAdapter',
                decoder=dict(
                    get_config('mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py')
                    .model.panoptic_head.pixel_decoder.to_dict(), type='mmdet.MSDeformAttnPixelDecoder'))),
        mask_upsample=1))
