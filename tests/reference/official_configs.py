"""Configs of the official release, as dicts: the goldens' models at the published sizes, with data and schedule."""

import copy
import json
from typing import Any

from golden import FOLDERS

NORMALIZE = dict(type='Normalize', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
PUBLISHED = dict(in_channels=256, out_channels=256, feat_channels=256, proposal_feature_channel=256, num_feats=128,
                 num_groups=32, num_heads=8, feedforward_channels=2048, num_proposals=100, max_per_img=100)
OFFICIAL_DEFAULTS = dict(num_thing_classes=80, num_stuff_classes=53)  # the release's files leave these unsaid

DETECTORS = [f'knet_s3_{name}_coco{task}' for task in ('', '-panoptic')
             for name in ('r50_fpn_1x', 'r50_fpn_ms-3x', 'r101_fpn_ms-3x', 'r101_dcn-c3-c5_fpn_ms-3x')]
DETECTORS.append('knet_s3_swin-l_fpn_ms-3x_16x2_coco-panoptic')
SEGMENTORS = [f'knet_s3_{name}_ade20k' for name in (
    'fcn_r50-d8_80k_adamw', 'pspnet_r50-d8_80k_adamw', 'deeplabv3_r50-d8_80k_adamw', 'upernet_r50-d8_80k_adamw',
    'upernet_swin-t_80k_adamw', 'upernet_swin-l_80k_adamw', 'upernet_swin-l_80k_adamw_640x640')]


def official_config(name: str) -> dict[str, Any]:
    """One of the 16 published configs, in the language of mmdet 2 or mmseg 0.x."""
    return _detector(name) if name in DETECTORS else _segmentor(name)


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
    multi_scale = '3x' in name
    return dict(
        model=model,
        custom_imports=dict(imports=['knet.det.knet', 'knet.kernel_updator'], allow_failed_imports=False),
        num_stages=3, data_root='data/coco/', **_coco(panoptic, multi_scale),
        optimizer=dict(type='AdamW', lr=0.0001, weight_decay=0.05,
                       paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.25)})),
        optimizer_config=dict(grad_clip=dict(max_norm=1, norm_type=2)),
        lr_config=dict(policy='step', warmup='linear', warmup_iters=1000, warmup_ratio=0.001,
                       step=[9, 11] if multi_scale else [8, 11]),
        runner=dict(type='EpochBasedRunner', max_epochs=12), **_runtime(dict(interval=1)))


def _runtime(checkpoint: dict) -> dict[str, Any]:
    return dict(checkpoint_config=checkpoint, log_config=dict(interval=50, hooks=[dict(type='TextLoggerHook')]),
                dist_params=dict(backend='nccl'), log_level='INFO', load_from=None, resume_from=None,
                workflow=[('train', 1)])


def _coco(panoptic: bool, multi_scale: bool) -> dict[str, Any]:
    load = (dict(type='LoadPanopticAnnotations', with_bbox=True, with_mask=True, with_seg=True) if panoptic else
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True))
    resize = (dict(img_scale=[(1333, 640), (1333, 800)], multiscale_mode='range') if multi_scale else
              dict(img_scale=(1333, 800)))
    keys = ['img', 'gt_bboxes', 'gt_labels', 'gt_masks'] + ['gt_semantic_seg'] * panoptic
    train_pipeline = [
        dict(type='LoadImageFromFile'), load, dict(type='Resize', **resize, keep_ratio=True),
        dict(type='RandomFlip', flip_ratio=0.5), NORMALIZE, dict(type='Pad', size_divisor=32),
        dict(type='DefaultFormatBundle'), dict(type='Collect', keys=keys)
    ]
    test_pipeline = _test_pipeline((1333, 800), [dict(type='Pad', size_divisor=32)])

    def dataset(split: str, pipeline: list) -> dict[str, Any]:
        kind = 'panoptic' if panoptic else 'instances'
        folders = dict(img_prefix=f'data/coco/{split}2017/')
        if panoptic:
            folders['seg_prefix'] = f'data/coco/annotations/panoptic_{split}2017/'
        return dict(type='CocoPanopticDataset' if panoptic else 'CocoDataset', pipeline=pipeline,
                    ann_file=f'data/coco/annotations/{kind}_{split}2017.json', **folders)

    train = dataset('train', train_pipeline)
    return dict(
        data=dict(samples_per_gpu=2, workers_per_gpu=2, val=dataset('val', test_pipeline),
                  test=dataset('val', test_pipeline),
                  train=dict(type='RepeatDataset', times=3, dataset=train) if multi_scale else train),
        evaluation=dict(interval=1, metric=['pq'] if panoptic else ['segm']))


def _test_pipeline(scale: tuple[int, int], pad: list[dict]) -> list[dict]:
    return [
        dict(type='LoadImageFromFile'),
        dict(type='MultiScaleFlipAug', img_scale=scale, flip=False, transforms=[
            dict(type='Resize', keep_ratio=True), dict(type='RandomFlip'), NORMALIZE, *pad,
            dict(type='ImageToTensor', keys=['img']), dict(type='Collect', keys=['img'])
        ])
    ]


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
    pretrained, optimizer = 'open-mmlab://resnet50_v1c', dict(type='AdamW', lr=0.0001, weight_decay=0.0005)
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
        optimizer.update(lr=0.00006, betas=(0.9, 0.999), paramwise_cfg=dict(custom_keys={
            key: dict(decay_mult=0.) for key in ('absolute_pos_embed', 'relative_position_bias_table', 'norm')}))
    if method == 'upernet':
        generator['in_channels'] = widths
    auxiliary = dict(
        type='FCNHead', in_channels=widths[2], in_index=2, channels=256, num_convs=1, concat_input=False,
        dropout_ratio=0.1, num_classes=150, norm_cfg=norm, align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4))
    return dict(
        model=dict(type='EncoderDecoder', pretrained=pretrained, backbone=backbone, decode_head=head,
                   auxiliary_head=auxiliary, train_cfg=dict(), test_cfg=dict(mode='whole')),
        custom_imports=dict(imports=['knet.seg.iter_decode_head', 'swin.swin_transformer'],
                            allow_failed_imports=False),
        norm_cfg=norm, **_ade(640 if '640' in name else 512), optimizer=optimizer,
        optimizer_config=dict(grad_clip=dict(max_norm=1, norm_type=2)),
        lr_config=dict(policy='step', warmup='linear', warmup_iters=1000, warmup_ratio=0.001, step=[60000, 72000],
                       by_epoch=False),
        runner=dict(type='IterBasedRunner', max_iters=80000), cudnn_benchmark=True,
        **_runtime(dict(by_epoch=False, interval=8000)))


def _ade(crop: int) -> dict[str, Any]:
    train_pipeline = [
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True),
        dict(type='Resize', img_scale=(2048, crop), ratio_range=(0.5, 2.0)),
        dict(type='RandomCrop', crop_size=(crop, crop), cat_max_ratio=0.75), dict(type='RandomFlip', prob=0.5),
        dict(type='PhotoMetricDistortion'), NORMALIZE,
        dict(type='Pad', size=(crop, crop), pad_val=0, seg_pad_val=255), dict(type='DefaultFormatBundle'),
        dict(type='Collect', keys=['img', 'gt_semantic_seg'])
    ]
    common = dict(type='ADE20KDataset', data_root='data/ade/ADEChallengeData2016')
    validation = dict(common, img_dir='images/validation', ann_dir='annotations/validation',
                      pipeline=_test_pipeline((2048, crop), []))
    return dict(
        data=dict(samples_per_gpu=2, workers_per_gpu=2, val=validation, test=copy.deepcopy(validation),
                  train=dict(common, img_dir='images/training', ann_dir='annotations/training',
                             pipeline=train_pipeline)),
        evaluation=dict(interval=8000, metric='mIoU'))
