"""The official detector, which mmdet 2 splits into ``rpn_head`` and ``roi_head``."""

from collections.abc import Mapping
from typing import Any

from knet_plugin.migration.options import Options, Report, bare_type
from knet_plugin.migration.supervision import loss_config, train_config
from knet_plugin.migration.update_head import stages_config

__all__ = ['detector_config', 'kernel_head_config', 'localization_fpn_config']


def localization_fpn_config(official: Any, report: Report, path: str = 'localization_fpn') -> dict[str, Any]:
    """Our config of a ``SemanticFPNWrapper``."""
    with Options(official, path, report, 'SemanticFPNWrapper') as options:
        options.only('start_level', 0)
        options.only('end_level', 3)
        encoding = options.take('positional_encoding')
        return dict(
            type='knet_plugin.LocalizationFPN', in_channels=options.require('in_channels'),
            feat_channels=options.require('feat_channels'), out_channels=options.require('out_channels'),
            output_level=3 - options.only('upsample_times', 3, 2),  # stride 4 or 8
            positional_encoding=encoding and dict(encoding, type=f'mmdet.{bare_type(encoding["type"])}'),
            coordinates=options.take('cat_coors', False), position_level=options.take('cat_coors_level', 3),
            fuse='concat' if options.take('fuse_by_cat', False) else 'sum', num_outputs=_num_outputs(options),
            norm_cfg=options.take('norm_cfg'))


def _num_outputs(options: Options) -> int:
    if options.take('with_pred', True):
        return 1 + options.take('num_aux_convs', 0)
    options.only('num_aux_convs', 0)
    return 0


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
        options.only('feat_refine_stride', 1)
        fpn = localization_fpn_config(options.require('localization_fpn'), report, options.at('localization_fpn'))
        if fpn['num_outputs'] != 2:
            report.refuse(options.at('localization_fpn.num_aux_convs'), fpn['num_outputs'] - 1, 'only 1 is supported')
        _initialisation(options)
        options.some('loss_mask', 'loss_dice', 'loss_seg', 'loss_rank')  # loss_config reads them
        return dict(
            type='knet_plugin.KernelHead', num_things_classes=things, num_stuff_classes=stuff,
            num_kernels=options.take('num_proposals', 100), channels=channels,
            kernel_size=options.take('conv_kernel_size', 1), localization_fpn=fpn, mask_activation=activation,
            branches=dict(num_convs=num_convs, refine=refine),
            norm_cfg=options.take('norm_cfg', dict(type='GN', num_groups=32)))


def _classes(options: Options) -> tuple[int, int]:
    """Numbers of thing and stuff classes. Without stuff kernels, all classes are things."""
    classes = options.take('num_classes', 80)
    if not options.take('cat_stuff_mask', False):
        options.drop('all classes are things', 'num_thing_classes', 'num_stuff_classes')
        return classes, 0
    things, stuff = options.take('num_thing_classes', 80), options.take('num_stuff_classes', 53)
    if classes != things + stuff:
        options.report.refuse(options.at('num_classes'), classes, f'must be num_thing_classes={things} + '
                              f'num_stuff_classes={stuff}')
    return things, stuff


def _initialisation(options: Options) -> None:
    """Report an initialisation that differs from the published models', which is ours."""
    published = dict(kernel_init_std=1, xavier_init_kernel=False, conv_normal_init=True)
    given = dict(kernel_init_std=0.01, xavier_init_kernel=False, conv_normal_init=False) | options.some(*published)
    if given != published:
        options.report.by_hand(options.path, given, f'{published} is used instead; set init_cfg')


def detector_config(official: Any, report: Report, path: str = 'model') -> dict[str, Any]:
    """Our config of an official ``KNet``, without its ``data_preprocessor``."""
    with Options(official, path, report, 'KNet') as options:
        backbone, neck = dict(options.require('backbone')), options.require('neck')
        if (pretrained := options.take('pretrained')) is not None:
            backbone['init_cfg'] = dict(type='Pretrained', checkpoint=pretrained)
        if neck.get('num_outs') != 4:
            report.refuse(options.at('neck.num_outs'), neck.get('num_outs'), 'only 4 is supported')
        head = _iter_head_config(options.require('roi_head'), options.require('rpn_head'), report, path)
        _repeated_classes(options, head)
        kernel_head = head['kernel_head']
        options.only('mask_assign_stride', 4 * 2**kernel_head['localization_fpn']['output_level']
                     // head['mask_upsample'], default=4)
        panoptic = head['num_stuff_classes'] > 0
        return dict(
            type='knet_plugin.KNet', backbone=backbone, neck=neck, panoptic_head=head,
            train_cfg=train_config(options.take('train_cfg'), report, options.at('train_cfg')),
            test_cfg=_test_config(options.take('test_cfg'), panoptic, report, options.at('test_cfg')),
            **options.some('init_cfg'))


def _repeated_classes(options: Options, head: Mapping[str, Any]) -> None:
    """The official parts repeat the numbers of classes. Without stuff, all classes are things."""
    if head['num_stuff_classes']:
        options.only('num_thing_classes', head['num_things_classes'], default=80)
        options.only('num_stuff_classes', head['num_stuff_classes'], default=53)
    else:
        options.drop('all classes are things', 'num_thing_classes', 'num_stuff_classes')


def _iter_head_config(roi: Any, rpn: Any, report: Report, path: str) -> dict[str, Any]:
    """Our ``KernelIterHead``, from the official one and the kernel head before it."""
    kernel_head = kernel_head_config(rpn, report, f'{path}.rpn_head')
    things, stuff = kernel_head.pop('num_things_classes'), kernel_head.pop('num_stuff_classes')
    with Options(roi, f'{path}.roi_head', report, 'KernelIterHead') as options:
        num_stages, given = options.take('num_stages', 6), options.require('mask_head')
        stages = {options.at('mask_head'): given} if isinstance(given, Mapping) else {
            options.at(f'mask_head[{i}]'): stage for i, stage in enumerate(given)}
        upsample = rpn.get('feat_downsample_stride', 1)
        repeated = dict(num_classes=(things + stuff, 80), mask_upsample_stride=(upsample, 1))
        if stuff:
            repeated |= dict(num_thing_classes=(things, 80), num_stuff_classes=(stuff, 53))
        for where, stage in stages.items():
            for name, (expected, default) in repeated.items():
                if stage.get(name, default) != expected:
                    report.refuse(f'{where}.{name}', stage.get(name, default), f'{path}.rpn_head has {expected}')
        weights = list(options.take('stage_loss_weights', (1, ) * 6))
        if len(weights) != num_stages:
            report.refuse(options.at('stage_loss_weights'), weights, f'must be {num_stages} numbers')
        criterion = loss_config({f'{path}.rpn_head': rpn, **stages}, report) | dict(stage_loss_weights=weights)
        head: dict[str, Any] = dict(
            type='knet_plugin.KernelIterHead', num_things_classes=things, num_stuff_classes=stuff,
            num_stages=num_stages, kernel_head=kernel_head,
            kernel_update_head=stages_config(given, num_stages, 'HardMask', report, options.at('mask_head')),
            criterion=criterion, mask_upsample=upsample)
        _repeated_classes(options, head)
        options.only('num_proposals', kernel_head['num_kernels'], default=100)
        options.only('do_panoptic', stuff > 0, default=False)
        if (matched := options.take('assign_stages', 5)) < num_stages:
            report.refuse(options.at('assign_stages'), matched, f'must be at least num_stages={num_stages}')
        return head


def _test_config(official: Any, panoptic: bool, report: Report, path: str) -> dict[str, Any]:
    """Our ``test_cfg``, with all outputs that the model has."""
    cfg: dict[str, Any] = dict(panoptic_on=panoptic, instance_on=True, semantic_on=panoptic)
    if official is None:
        return cfg
    with Options(official, path, report) as options, \
            Options(options.require('rcnn'), f'{path}.rcnn', report) as rcnn:
        cfg |= rcnn.some('max_per_img', 'mask_thr')
        merge = rcnn.take('merge_stuff_thing') if panoptic else None
        if merge is not None:
            with Options(merge, f'{path}.rcnn.merge_stuff_thing', report) as merging:
                cfg |= merging.some('instance_score_thr', 'overlap_thr')
    return cfg
