"""Configs of the official release, as dicts: the goldens' models at the published sizes."""

import json
from typing import Any

from golden import FOLDERS

PUBLISHED = dict(in_channels=256, out_channels=256, feat_channels=256, proposal_feature_channel=256, num_feats=128,
                 num_groups=32, num_heads=8, feedforward_channels=2048, num_proposals=100, max_per_img=100)
# The other sections of such a file, in short.
RUN = dict(custom_imports=dict(imports=['knet'], allow_failed_imports=False), data=dict(samples_per_gpu=2),
           optimizer=dict(type='AdamW', lr=0.0001), lr_config=dict(policy='step', step=[8, 11]),
           runner=dict(type='EpochBasedRunner', max_epochs=12), log_level='INFO')
OFFICIAL_DEFAULTS = dict(num_thing_classes=80, num_stuff_classes=53)  # the release's files leave these unsaid

DETECTORS = [f'knet_s3_{name}_coco{task}' for task in ('', '-panoptic')
             for name in ('r50_fpn_1x', 'r50_fpn_ms-3x', 'r101_fpn_ms-3x', 'r101_dcn-c3-c5_fpn_ms-3x')]
DETECTORS.append('knet_s3_swin-l_fpn_ms-3x_16x2_coco-panoptic')
SEGMENTORS = [f'knet_s3_{name}_ade20k' for name in (
    'fcn_r50-d8_80k_adamw', 'pspnet_r50-d8_80k_adamw', 'deeplabv3_r50-d8_80k_adamw', 'upernet_r50-d8_80k_adamw',
    'upernet_swin-t_80k_adamw', 'upernet_swin-l_80k_adamw', 'upernet_swin-l_80k_adamw_640x640')]


def official_config(name: str) -> dict[str, Any]:
    """One of the 16 published configs, in the language of mmdet 2 or mmseg 0.x."""
    return dict(model=_detector(name) if name in DETECTORS else _segmentor(name), **RUN)


def _golden_config(name: str) -> dict[str, Any]:
    path = next(folder / f'{name}.json' for folder in FOLDERS if (folder / f'{name}.json').exists())
    return json.loads(path.read_text())['config']


def _resized(part: Any, sizes: dict[str, int]) -> Any:
    if isinstance(part, dict):
        return {key: sizes.get(key, _resized(value, sizes)) for key, value in part.items()
                if key not in OFFICIAL_DEFAULTS}
    return [_resized(value, sizes) for value in part] if isinstance(part, list) else part


def _detector(name: str) -> dict[str, Any]:
    panoptic = name.endswith('-panoptic')
    golden = _golden_config(f'knet_{"panoptic" if panoptic else "instance"}_trained')
    model = _resized(golden, dict(PUBLISHED, num_classes=133 if panoptic else 80))
    model['neck']['in_channels'] = [256, 512, 1024, 2048]
    del model['rpn_head']['out_channels'], model['rpn_head']['norm_cfg']
    model['backbone'].update(depth=50, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'))
    del model['backbone']['base_channels']
    if 'r101' in name:
        model['backbone'].update(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101'))
    if 'dcn' in name:
        model['backbone'].update(dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False),
                                 stage_with_dcn=(False, True, True, True))
    if 'swin-l' in name:
        model['backbone'] = dict(
            type='SwinTransformer', embed_dims=192, depths=[2, 2, 18, 2], num_heads=[6, 12, 24, 48], window_size=7,
            mlp_ratio=4, qkv_bias=True, qk_scale=None, drop_rate=0., attn_drop_rate=0., drop_path_rate=0.2,
            patch_norm=True, out_indices=(0, 1, 2, 3), with_cp=False, convert_weights=True,
            init_cfg=dict(type='Pretrained', checkpoint='https://github.com/SwinTransformer/storage/releases/download/'
                          'v1.0.0/swin_large_patch4_window7_224_22k.pth'))
        model['neck']['in_channels'] = [192, 384, 768, 1536]
    return model


def _segmentor(name: str) -> dict[str, Any]:
    method = name.split('_')[2]
    channels = 256 if method == 'upernet' else 512
    head = _resized(_golden_config('seg_iter_head_uper' if method == 'upernet' else 'seg_iter_head_fcn_quirk2x'),
                    dict(PUBLISHED, num_classes=150))
    for stage in head['kernel_update_head']:
        stage.update(in_channels=channels, out_channels=channels)
    norm = dict(type='SyncBN', requires_grad=True)
    generator = head['kernel_generate_head']
    generator.update(channels=channels, in_channels=2048, dropout_ratio=0.1, norm_cfg=norm)
    if method in ('pspnet', 'deeplabv3'):
        del generator['num_convs'], generator['concat_input']
        generator.update(dict(type='PSPKernelHead', pool_scales=(1, 2, 3, 6)) if method == 'pspnet' else
                         dict(type='ASPPKernelHead', dilations=(1, 12, 24, 36)))
    widths = [256, 512, 1024, 2048]
    dilated = method != 'upernet'
    backbone: dict[str, Any] = dict(
        type='ResNetV1c', depth=50, num_stages=4, out_indices=(0, 1, 2, 3), norm_cfg=norm, norm_eval=False,
        dilations=(1, 1, 2, 4) if dilated else (1, 1, 1, 1), strides=(1, 2, 1, 1) if dilated else (1, 2, 2, 2),
        style='pytorch', contract_dilation=True)
    pretrained = 'open-mmlab://resnet50_v1c'
    if 'swin' in name:
        large = 'swin-l' in name
        width = 192 if large else 96
        widths = [width * 2**i for i in range(4)]
        pretrained = f'./pretrain/swin/swin_{"large" if large else "tiny"}.pth'
        backbone = dict(  # in the words of the Swin authors' own code
            type='SwinTransformer', embed_dim=width, depths=[2, 2, 18 if large else 6, 2],
            num_heads=[width // 32 * 2**i for i in range(4)], window_size=7, mlp_ratio=4., qkv_bias=True, qk_scale=None,
            drop_rate=0., attn_drop_rate=0., drop_path_rate=0.4 if '640' in name else 0.3, ape=False, patch_norm=True,
            out_indices=(0, 1, 2, 3), use_checkpoint=False)
    if method == 'upernet':
        generator['in_channels'] = widths
    auxiliary = dict(
        type='FCNHead', in_channels=widths[2], in_index=2, channels=256, num_convs=1, concat_input=False,
        dropout_ratio=0.1, num_classes=150, norm_cfg=norm, align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4))
    return dict(type='EncoderDecoder', pretrained=pretrained, backbone=backbone, decode_head=head,
                auxiliary_head=auxiliary, train_cfg=dict(), test_cfg=dict(mode='whole'))
