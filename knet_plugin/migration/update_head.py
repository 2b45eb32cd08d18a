"""The parts that all K-Nets have: ``KernelUpdateHead`` and ``KernelUpdator``."""

from collections.abc import Mapping, Sequence
from typing import Any

from knet_plugin.migration.options import Options, Report

__all__ = ['stages_config', 'update_head_config', 'updater_config']

NEVER_READ = 'never read'
LOSSES = ('loss_mask', 'loss_dice', 'loss_cls', 'loss_seg', 'loss_rank')


def updater_config(official: Any, channels: int, report: Report, path: str = 'kernel_updator_cfg') -> dict[str, Any]:
    """Our config of a ``KernelUpdator`` that is fed ``channels`` channels.

    Args:
        official: Its config.
        channels: Channels of the head around it.
        report: Where to note what is dropped or refused.
        path: Where the config is, for messages.
    """
    with Options(official, path, report) as options:
        options.only_type('KernelUpdator')
        group, inside = options.take('in_channels', 256), options.take('feat_channels', 64)
        cfg = dict(type='knet_plugin.KernelUpdater', group_channels=group)
        if group != inside:
            report.refuse(f'{path}.feat_channels', inside, f'must equal in_channels={group}: the gates read both')
        if channels % group:
            report.refuse(f'{path}.in_channels', group, f'must divide the {channels} channels of the head: otherwise '
                          'the images of a batch are mixed')
        out = options.take('out_channels')
        if out and out != group:
            cfg['out_channels'] = out
        cfg |= options.some('gate_sigmoid', 'gate_norm_act', 'activate_out')
        options.only_relu('act_cfg')
        options.only('norm_cfg', dict(type='LN'), 'only LN is supported')
        options.drop(['input_feat_shape'], NEVER_READ)
    return cfg


def update_head_config(official: Any, mask_activation: str, report: Report,
                       path: str = 'kernel_update_head[0]') -> dict[str, Any]:
    """Our config of a ``KernelUpdateHead``: mmseg's, the official semantic one, or (but for its losses) the detectors'.

    Args:
        official: Its config.
        mask_activation: ``'SoftmaxMask'`` for a semantic head, ``'HardMask'`` for a detector's.
        report: Where to note what is dropped or refused.
        path: Where the config is, for messages.
    """
    detection = mask_activation == 'HardMask'
    with Options(official, path, report) as options:
        options.only_type('KernelUpdateHead')
        channels = options.take('in_channels', 256)
        kernel_size = options.take('conv_kernel_size', 3 if detection else 1)
        activation: dict[str, Any] = dict(type=f'knet_plugin.{mask_activation}')
        classifier = None
        if detection:
            if 'hard_mask_thr' in options:
                activation['threshold'] = options.take('hard_mask_thr')
            classifier = dict(type='knet_plugin.KernelClassifier', num_classes=options.take('num_classes', 80),
                              num_fcs=options.take('num_cls_fcs', 1))
            options.only('kernel_init', False, 'only the usual initialisation is supported')
            options.only('ignore_label', 255, 'only 255 is supported')
            # The losses, the number of things and the size of the masks are the business of the head around it.
            options.some(*LOSSES, 'num_thing_classes', 'num_stuff_classes', 'mask_upsample_stride')
            options.drop(['mask_thr', 'mask_out_stride', 'mask_assign_stride', 'thing_label_in_seg', 'relative_coors',
                          'relative_coors_off'], NEVER_READ)
        else:
            options.drop(['num_classes', 'mask_upsample_stride', 'mask_out_stride'], NEVER_READ)
            options.drop(['kernel_init'], 'the initialisation of a semantic head is never called')
        options.only('out_channels', channels, f'must equal in_channels={channels}', default=256)
        updater = updater_config(options.require('kernel_updator_cfg'), channels, report,
                                 options.at('kernel_updator_cfg'))
        if kernel_size > 1 and updater['group_channels'] != channels:
            report.refuse(options.at('conv_kernel_size'), kernel_size, 'channel groups (kernel_updator_cfg.in_channels='
                          f'{updater["group_channels"]} for {channels} channels) are supported for 1 x 1 kernels only')
        interaction = dict(type='knet_plugin.KernelInteraction', num_heads=options.take('num_heads', 8),
                           feedforward_channels=options.take('feedforward_channels', 2048),
                           num_fcs=options.take('num_ffn_fcs', 2), dropout=options.take('dropout', 0.0))
        if not options.take('with_ffn', True):
            interaction['feedforward_channels'] = None
        options.only_relu('act_cfg', 'ffn_act_cfg')
        for name in ('feat_gather_stride', 'mask_transform_stride'):
            options.only(name, 1, 'only 1 is supported')
        return dict(
            type='knet_plugin.KernelUpdateHead',
            channels=channels,
            kernel_size=kernel_size,
            mask_activation=activation,
            updater=updater,
            interaction=interaction,
            classifier=classifier,
            feat_transform=_feat_transform(options),
            num_mask_fcs=options.take('num_mask_fcs', 3))


def _feat_transform(options: Options) -> bool:
    """Whether there is one; it can be a 1 x 1 convolution with bias, and nothing else."""
    given = options.take('feat_transform_cfg')
    if given is None:
        return False
    reason = 'only a 1 x 1 convolution with bias, without norm and activation, is supported'
    with Options(given, options.at('feat_transform_cfg'), options.report) as transform:
        if transform.take('conv_cfg') not in (None, dict(type='Conv2d')):
            transform.report.refuse(transform.at('conv_cfg'), given['conv_cfg'], reason)
        if transform.take('act_cfg', dict(type='ReLU')) is not None:  # ReLU is mmcv's default
            transform.report.refuse(transform.at('act_cfg'), given.get('act_cfg', 'ReLU, by default'), reason)
        if transform.take('bias', 'auto') not in ('auto', True):
            transform.report.refuse(transform.at('bias'), given['bias'], reason)
        if transform.take('norm_cfg') is not None:
            transform.report.refuse(transform.at('norm_cfg'), given['norm_cfg'], reason)
        transform.only('kernel_size', 1, reason)
    return True


def stages_config(official: Mapping | Sequence, num_stages: int, mask_activation: str, report: Report,
                  path: str) -> dict[str, Any] | list[dict[str, Any]]:
    """Our ``kernel_update_head``: one config where all stages have the same, else a list.

    Args:
        official: One config for all stages, or one for each.
        num_stages: Update stages S.
        mask_activation: As for :func:`update_head_config`.
        report: Where to note what is dropped or refused.
        path: Where the configs are, for messages.
    """
    if isinstance(official, Mapping):
        return update_head_config(official, mask_activation, report, path)
    if len(official) != num_stages:
        report.refuse(path, f'a list of {len(official)}', f'must have one config for each of num_stages={num_stages}')
    stages = [update_head_config(cfg, mask_activation, report, f'{path}[{i}]') for i, cfg in enumerate(official)]
    return stages[0] if stages and all(stage == stages[0] for stage in stages) else stages
