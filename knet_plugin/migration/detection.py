"""The official detector, in the shape that mmdet 2 gave it: ``rpn_head`` and ``roi_head``."""

from collections.abc import Mapping
from typing import Any

from knet_plugin.migration.options import MigrationError, Options, Report, bare_type
from knet_plugin.migration.supervision import loss_config, train_config
from knet_plugin.migration.update_head import NEVER_READ, stages_config

__all__ = ['detector_config', 'kernel_head_config', 'localization_fpn_config']

ENCODINGS = ('SinePositionalEncoding', 'LearnedPositionalEncoding')


def localization_fpn_config(official: Any, report: Report, path: str = 'localization_fpn') -> dict[str, Any]:
    """Our config of a ``SemanticFPNWrapper``.

    Args:
        official: Its config.
        report: Where to note what is dropped or refused.
        path: Where the config is, for messages.
    """
    with Options(official, path, report) as options:
        options.only_type('SemanticFPNWrapper')
        options.only('start_level', 0, 'the four levels 0 to 3 are read')
        options.only('end_level', 3, 'the four levels 0 to 3 are read')
        options.only_relu('act_cfg', 'out_act_cfg')
        if (conv := options.take('conv_cfg')) is not None:
            report.refuse(options.at('conv_cfg'), conv, 'only ordinary convolutions are supported')
        options.drop(['return_list'], 'a list is always returned')
        encoding = options.take('positional_encoding')
        if encoding is not None:
            encoding = dict(encoding)
            if bare_type(encoding.get('type')) not in ENCODINGS:
                report.refuse(options.at('positional_encoding'), encoding, f'only {" or ".join(ENCODINGS)}')
            encoding['type'] = f'mmdet.{bare_type(encoding.get("type"))}'
        upsample_times = options.take('upsample_times', 3)
        if upsample_times not in (2, 3):
            report.refuse(options.at('upsample_times'), upsample_times, 'only 2 (stride 8) and 3 (stride 4)')
        return dict(
            type='knet_plugin.LocalizationFPN', in_channels=options.require('in_channels'),
            feat_channels=options.require('feat_channels'), out_channels=options.require('out_channels'),
            output_level=3 - upsample_times, positional_encoding=encoding,
            coordinates=options.take('cat_coors', False), position_level=options.take('cat_coors_level', 3),
            fuse='concat' if options.take('fuse_by_cat', False) else 'sum', num_outputs=_num_outputs(options),
            norm_cfg=options.take('norm_cfg'))


def _num_outputs(options: Options) -> int:
    if options.take('with_pred', True):
        return 1 + options.take('num_aux_convs', 0)
    options.only('num_aux_convs', 0, 'with_pred=False has a single output')
    return 0


def kernel_head_config(official: Any, report: Report, path: str = 'rpn_head') -> dict[str, Any]:
    """Our config of a ``ConvKernelHead``, without its losses.

    Args:
        official: Its config.
        report: Where to note what is dropped or refused.
        path: Where the config is, for messages.
    """
    with Options(official, path, report) as options:
        options.only_type('ConvKernelHead')
        things, stuff = _classes(options)
        channels = options.take('out_channels', 256)
        options.only('in_channels', channels, f'must equal out_channels={channels}', default=256)
        num_convs = options.take('num_loc_convs', 1)
        options.only('num_seg_convs', num_convs, f'must equal num_loc_convs={num_convs}', default=1)
        activation: dict[str, Any] | None = None
        binary = options.take('use_binary', False)
        if options.take('proposal_feats_with_obj', False):
            activation = (dict(type='knet_plugin.HardMask') if binary else
                          dict(type='knet_plugin.SigmoidMask', threshold=0.5))
        upsampled = options.take('feat_downsample_stride', 1) > 1
        refine = options.take('feat_refine', True) and upsampled
        if refine:
            options.only('feat_refine_stride', 1, 'only 1 is supported')
        fpn = localization_fpn_config(options.require('localization_fpn'), report, options.at('localization_fpn'))
        if fpn['num_outputs'] != 2:
            report.refuse(options.at('localization_fpn.num_aux_convs'), fpn['num_outputs'] - 1,
                          'only 1 is supported: one map for things, one for classes')
        cfg = dict(
            type='knet_plugin.KernelHead', num_things_classes=things, num_stuff_classes=stuff,
            num_kernels=options.take('num_proposals', 100), channels=channels,
            kernel_size=options.take('conv_kernel_size', 1), localization_fpn=fpn, mask_activation=activation,
            branches=dict(num_convs=num_convs, refine=refine), norm_cfg=options.take('norm_cfg', dict(type='GN', num_groups=32)))
        cfg |= _initialisation(options, upsampled)
        options.only('hard_target', False, 'only soft targets are supported')
        options.only('semantic_fpn', True, 'the semantic branch is always there')
        options.only('ignore_label', 255, 'only 255 is supported')
        options.some('loss_mask', 'loss_dice', 'loss_seg', 'loss_rank', 'train_cfg', 'test_cfg')  # read elsewhere
        options.drop(['loss_cls'], 'the kernel head has no classifier')
        options.drop(['num_heads', 'att_dropout', 'num_cls_fcs', 'with_embed', 'feat_embed_only', 'mask_out_stride',
                      'mask_assign_stride', 'thing_label_in_seg', 'feat_transform_cfg', 'feat_refine_stride'],
                     NEVER_READ)
    return cfg


def _classes(options: Options) -> tuple[int, int]:
    """Numbers of thing and stuff classes. Without stuff kernels, all classes are things, whatever else is said."""
    classes = options.take('num_classes', 80)
    things, stuff = options.take('num_thing_classes', 80), options.take('num_stuff_classes', 53)
    if not options.take('cat_stuff_mask', False):
        if things < classes:
            options.report.refuse(options.at('num_thing_classes'), things, f'below num_classes={classes}, although '
                                  'cat_stuff_mask=False')
        return classes, 0
    if classes != things + stuff:
        options.report.refuse(options.at('num_classes'), classes, f'must be num_thing_classes={things} + '
                              f'num_stuff_classes={stuff}')
    return things, stuff


def _initialisation(options: Options, upsampled: bool) -> dict[str, Any]:
    """``init_cfg``, where it is not that of the published models."""
    std, xavier = options.take('kernel_init_std', 0.01), options.take('xavier_init_kernel', False)
    convs = options.take('conv_normal_init', False) and upsampled  # the official code looks at both
    if std == 1 and convs and not xavier:
        return {}
    kernels = (dict(type='Xavier', name='init_kernels', distribution='uniform') if xavier else
               dict(type='Normal', name='init_kernels', std=std))
    override = [kernels, dict(type='Normal', name='conv_seg', std=0.01, bias_prob=0.01)]
    layer = dict(layer='Conv2d') if convs else {}
    return dict(init_cfg=dict(type='Normal', std=0.01, **layer, override=override))


def detector_config(official: Any, report: Report, path: str = 'model') -> dict[str, Any]:
    """Our config of an official ``KNet``, but for its ``data_preprocessor``, which mmdet 2 has in the pipelines.

    Args:
        official: Its config.
        report: Where to note what is dropped or refused.
        path: Where the config is, for messages.
    """
    with Options(official, path, report) as options:
        options.only_type('KNet')
        pretrained = options.take('pretrained')
        backbone, neck = dict(options.require('backbone')), dict(options.require('neck'))
        if pretrained is not None:
            backbone['init_cfg'] = dict(type='Pretrained', checkpoint=pretrained)
        if neck.get('num_outs') != 4:
            report.refuse(options.at('neck.num_outs'), neck.get('num_outs'), 'must be 4: four levels are read')
        elif 'add_extra_convs' in neck and len(neck.get('in_channels', ())) == 4 and not neck.get('start_level'):
            report.drop(options.at('neck.add_extra_convs'), neck.pop('add_extra_convs'), 'there are no extra levels')
        rpn, roi = options.require('rpn_head'), options.require('roi_head')
        kernel_head = kernel_head_config(rpn, report, options.at('rpn_head'))
        things, stuff = kernel_head.pop('num_things_classes'), kernel_head.pop('num_stuff_classes')
        head = _iter_head_config(roi, rpn, kernel_head, things, stuff, report, options.at('roi_head'))
        for name, number in _class_options(things, stuff).items():
            if stuff:
                options.only(name, number, f'{path}.rpn_head has {number}', default=_CLASS_DEFAULTS[name])
        options.drop(_CLASS_DEFAULTS, 'without stuff, all classes are things')
        _check_mask_size(options, head)
        options.drop(['thing_label_in_seg'], NEVER_READ)
        train_cfg = train_config(options.take('train_cfg'), report, options.at('train_cfg'))
        return dict(
            type='knet_plugin.KNet', backbone=backbone, neck=neck, panoptic_head=head, train_cfg=train_cfg,
            test_cfg=_test_config(options.take('test_cfg'), stuff > 0, report, options.at('test_cfg')),
            **options.some('init_cfg'))


_CLASS_DEFAULTS = dict(num_thing_classes=80, num_stuff_classes=53)


def _class_options(things: int, stuff: int) -> dict[str, int]:
    return dict(num_thing_classes=things, num_stuff_classes=stuff)


def _check_mask_size(options: Options, head: dict[str, Any]) -> None:
    """Targets are made at the size of the masks; the official code says both sizes."""
    stride = 4 * 2**head['kernel_head']['localization_fpn']['output_level'] // head['mask_upsample']
    options.only('mask_assign_stride', stride, f'the masks of the losses have stride {stride}', default=4)


def _iter_head_config(official: Any, rpn: Mapping, kernel_head: dict[str, Any], things: int, stuff: int,
                      report: Report, path: str) -> dict[str, Any]:
    """Our ``KernelIterHead``, of the official one and of the kernel head before it."""
    with Options(official, path, report) as options:
        options.only_type('KernelIterHead')
        num_stages = options.take('num_stages', 6)
        given = options.require('mask_head')
        stages = [given] if isinstance(given, Mapping) else list(given)
        if not stages:
            raise MigrationError(f'{path}.mask_head is empty: at least one stage is needed')
        paths = [f'{path}.mask_head' + ('' if isinstance(given, Mapping) else f'[{i}]') for i in range(len(stages))]
        rpn_path = f'{path.removesuffix("roi_head")}rpn_head'
        for stage, where in zip(stages, paths, strict=True):
            _check_stage(stage, where, rpn, things, stuff, report)
        _check_assignment(options, num_stages, kernel_head, rpn_path)
        options.only('do_panoptic', stuff > 0, f'{rpn_path} has cat_stuff_mask={stuff > 0}', default=False)
        if stuff:
            for name, number in _class_options(things, stuff).items():
                options.only(name, number, f'{rpn_path} has {number}', default=_CLASS_DEFAULTS[name])
        elif (matched := options.take('num_thing_classes', 80)) < things:
            report.refuse(options.at('num_thing_classes'), matched, f'below the {things} classes of the heads')
        options.drop(['num_stuff_classes'], 'without stuff, all classes are things')
        options.drop(['proposal_feature_channel', 'merge_cls_scores', 'mask_out_stride', 'mask_assign_stride',
                      'thing_label_in_seg', 'mask_roi_extractor'], NEVER_READ)
        options.some('train_cfg', 'test_cfg')  # the detector's are read
        weights = list(options.take('stage_loss_weights', (1, ) * 6))
        if len(weights) != num_stages:
            report.refuse(options.at('stage_loss_weights'), weights, f'must be num_stages={num_stages} numbers')
        return dict(
            type='knet_plugin.KernelIterHead', num_things_classes=things, num_stuff_classes=stuff,
            num_stages=num_stages, kernel_head=kernel_head,
            kernel_update_head=stages_config(given, num_stages, 'HardMask', report, f'{path}.mask_head'),
            criterion=dict(loss_config({rpn_path: rpn} | dict(zip(paths, stages, strict=True)), report),
                           stage_loss_weights=weights),
            mask_upsample=stages[0].get('mask_upsample_stride', 1))


def _check_stage(stage: Mapping, path: str, rpn: Mapping, things: int, stuff: int, report: Report) -> None:
    """A stage must mean the same classes and sizes as the kernel head, which also has its own defaults for them."""
    wanted = dict(num_classes=(things + stuff, 80), mask_upsample_stride=(rpn.get('feat_downsample_stride', 1), 1))
    if stuff:
        wanted |= dict(num_thing_classes=(things, 80), num_stuff_classes=(stuff, 53))
    for name, (number, default) in wanted.items():
        if stage.get(name, default) != number:
            report.refuse(f'{path}.{name}', stage.get(name, default), f'the kernel head has {number}')


def _check_assignment(options: Options, num_stages: int, kernel_head: Mapping, rpn_path: str) -> None:
    """Every stage is matched anew, by what the stage before it predicted, and all kernels take part."""
    options.only('num_proposals', kernel_head['num_kernels'], f'{rpn_path} has {kernel_head["num_kernels"]} kernels',
                 default=100)
    options.only('recursive', False, 'every stage has its own weights')
    options.only('post_assign', False, 'a stage is matched by the predictions before it')
    options.only('hard_target', False, 'only soft targets are supported')
    assigned = options.take('assign_stages', 5)
    if assigned < num_stages:
        options.report.refuse(options.at('assign_stages'), assigned, f'below num_stages={num_stages}: every stage is '
                              'matched anew')


def _test_config(official: Any, panoptic: bool, report: Report, path: str) -> dict[str, Any]:
    """Read-outs of all that the model can say, and the thresholds."""
    cfg: dict[str, Any] = dict(panoptic_on=panoptic, instance_on=True, semantic_on=panoptic)
    if official is None:
        return cfg
    with Options(official, path, report) as options:
        options.drop(['rpn'], NEVER_READ)
        with Options(options.require('rcnn'), f'{path}.rcnn', report) as rcnn:
            cfg |= rcnn.some('max_per_img', 'mask_thr')
            rcnn.drop(['stuff_score_thr'], NEVER_READ)
            if not panoptic:
                rcnn.drop(['merge_stuff_thing'], 'read for panoptic results only')
            elif 'merge_stuff_thing' in rcnn:
                with Options(rcnn.take('merge_stuff_thing'), f'{path}.rcnn.merge_stuff_thing', report) as merge:
                    cfg |= merge.some('instance_score_thr', 'overlap_thr')
                    merge.drop(['iou_thr', 'stuff_max_area'], NEVER_READ)
    return cfg
