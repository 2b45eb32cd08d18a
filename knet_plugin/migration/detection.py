"""The official detector, which mmdet 2 splits into ``rpn_head`` and ``roi_head``.

Its parts repeat numbers of classes, of kernels and strides. We read them from ``rpn_head``.
"""

from collections.abc import Mapping
from typing import Any

from knet_plugin.migration.options import Options, Report, bare_type
from knet_plugin.migration.supervision import loss_config, train_config
from knet_plugin.migration.update_head import LOSSES, stages_config

__all__ = ['detector_config', 'kernel_head_config', 'localization_fpn_config']

# How the published models start; the official defaults are others.
INITIALISATION = dict(kernel_init_std=1, xavier_init_kernel=False, conv_normal_init=True)
OFFICIAL_INITIALISATION = dict(kernel_init_std=0.01, xavier_init_kernel=False, conv_normal_init=False)


def localization_fpn_config(official: Any, report: Report, path: str = 'localization_fpn') -> dict[str, Any]:
    """Our config of a ``SemanticFPNWrapper``."""
    with Options(official, path, report, 'SemanticFPNWrapper') as options:
        encoding = options.take('positional_encoding')
        num_aux_convs = options.take('num_aux_convs', 0)
        return dict(
            type='knet_plugin.LocalizationFPN', in_channels=options.require('in_channels'),
            feat_channels=options.require('feat_channels'), out_channels=options.require('out_channels'),
            output_level=3 - options.take('upsample_times', 3),
            positional_encoding=encoding and dict(encoding, type=f'mmdet.{bare_type(encoding["type"])}'),
            coordinates=options.take('cat_coors', False), position_level=options.take('cat_coors_level', 3),
            fuse='concat' if options.take('fuse_by_cat', False) else 'sum',
            num_outputs=1 + num_aux_convs if options.take('with_pred', True) else 0, norm_cfg=options.take('norm_cfg'))


def kernel_head_config(official: Any, report: Report, path: str = 'rpn_head') -> dict[str, Any]:
    """Our config of a ``ConvKernelHead``, without its losses."""
    with Options(official, path, report, 'ConvKernelHead') as options:
        things, stuff = _classes(options)
        channels, num_convs = options.take('out_channels', 256), options.take('num_loc_convs', 1)
        options.only('in_channels', channels, default=256)
        options.only('num_seg_convs', num_convs, default=1)
        activation: dict[str, Any] | None = None
        binary = options.take('use_binary', False)
        if options.take('proposal_feats_with_obj', False):
            activation = (dict(type='knet_plugin.HardMask') if binary else
                          dict(type='knet_plugin.SigmoidMask', threshold=0.5))
        upsampled = options.take('feat_downsample_stride', 1) > 1
        refine = options.take('feat_refine', True) and upsampled
        given = OFFICIAL_INITIALISATION | options.some(*INITIALISATION)
        if given != INITIALISATION:
            report.by_hand(path, given, f'{INITIALISATION} is used instead; set init_cfg')
        options.skip(*LOSSES['ConvKernelHead'])
        return dict(
            type='knet_plugin.KernelHead', num_things_classes=things, num_stuff_classes=stuff,
            num_kernels=options.take('num_proposals', 100), channels=channels,
            kernel_size=options.take('conv_kernel_size', 1), mask_activation=activation,
            localization_fpn=localization_fpn_config(options.require('localization_fpn'), report,
                                                     options.at('localization_fpn')),
            branches=dict(num_convs=num_convs, refine=refine),
            norm_cfg=options.take('norm_cfg', dict(type='GN', num_groups=32)))


def _classes(options: Options) -> tuple[int, int]:
    """Numbers of thing and stuff classes. Without stuff kernels, all classes are things."""
    classes = options.take('num_classes', 80)
    things, stuff = options.take('num_thing_classes', 80), options.take('num_stuff_classes', 53)
    if not options.take('cat_stuff_mask', False):
        return classes, 0
    if classes != things + stuff:
        options.report.refuse(options.at('num_classes'), classes, f'must be num_thing_classes={things} + '
                              f'num_stuff_classes={stuff}')
    return things, stuff


def detector_config(official: Any, report: Report, path: str = 'model') -> dict[str, Any]:
    """Our config of an official ``KNet``, without its ``data_preprocessor``."""
    with Options(official, path, report, 'KNet') as options:
        backbone = dict(options.require('backbone'))
        if (pretrained := options.take('pretrained')) is not None:
            backbone['init_cfg'] = dict(type='Pretrained', checkpoint=pretrained)
        head = _iter_head_config(options.require('roi_head'), options.require('rpn_head'), report, path)
        options.skip('num_thing_classes', 'num_stuff_classes', 'mask_assign_stride')
        return dict(
            type='knet_plugin.KNet', backbone=backbone, neck=options.require('neck'), panoptic_head=head,
            train_cfg=train_config(options.take('train_cfg'), report, options.at('train_cfg')),
            test_cfg=_test_config(options.take('test_cfg'), head['num_stuff_classes'] > 0, report,
                                  options.at('test_cfg')),
            **options.some('init_cfg'))


def _iter_head_config(roi: Any, rpn: Any, report: Report, path: str) -> dict[str, Any]:
    """Our ``KernelIterHead``, from the official one and the kernel head before it."""
    kernel_head = kernel_head_config(rpn, report, f'{path}.rpn_head')
    with Options(roi, f'{path}.roi_head', report, 'KernelIterHead') as options:
        num_stages, stages = options.take('num_stages', 6), options.require('mask_head')
        heads = {f'{path}.rpn_head': rpn}
        for i, stage in enumerate([stages] if isinstance(stages, Mapping) else stages):
            heads[options.at(f'mask_head[{i}]')] = stage
        criterion = loss_config(heads, report)
        weights = list(options.take('stage_loss_weights', ()))
        if set(weights) - {1}:
            criterion['stage_loss_weights'] = weights
        options.skip('num_thing_classes', 'num_stuff_classes', 'num_proposals', 'do_panoptic')
        if (matched := options.take('assign_stages', 5)) < num_stages:
            report.refuse(options.at('assign_stages'), matched, f'must be at least num_stages={num_stages}')
        return dict(
            type='knet_plugin.KernelIterHead', num_things_classes=kernel_head.pop('num_things_classes'),
            num_stuff_classes=kernel_head.pop('num_stuff_classes'), num_stages=num_stages, kernel_head=kernel_head,
            kernel_update_head=stages_config(stages, num_stages, 'HardMask', report, options.at('mask_head')),
            criterion=criterion, mask_upsample=rpn.get('feat_downsample_stride', 1))


def _test_config(official: Any, panoptic: bool, report: Report, path: str) -> dict[str, Any]:
    """Our ``test_cfg``, with all outputs that the model has."""
    cfg: dict[str, Any] = dict(panoptic_on=panoptic, instance_on=True, semantic_on=panoptic)
    if official is None:
        return cfg
    with Options(official, path, report) as options, \
            Options(options.require('rcnn'), f'{path}.rcnn', report) as rcnn:
        cfg |= rcnn.some('max_per_img', 'mask_thr')
        if panoptic and (merge := rcnn.take('merge_stuff_thing')):
            with Options(merge, rcnn.at('merge_stuff_thing'), report) as merging:
                cfg |= merging.some('instance_score_thr', 'overlap_thr')
    return cfg
