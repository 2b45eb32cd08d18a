"""``KernelUpdateHead`` and ``KernelUpdator``, which all K-Nets have.

The functions of this package take the official config, the report, and the config's path for messages.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from knet_plugin.migration.options import Options, Report

__all__ = ['LOSSES', 'stages_config', 'update_head_config', 'updater_config']

# A 1 x 1 convolution with bias, without norm and activation.
FEAT_TRANSFORM = dict(conv_cfg=dict(type='Conv2d'), act_cfg=None)
# Losses of the detector's heads, which its criterion has here.
LOSSES = dict(ConvKernelHead=('loss_mask', 'loss_dice', 'loss_seg', 'loss_rank'),
              KernelUpdateHead=('loss_mask', 'loss_dice', 'loss_cls', 'loss_rank'))


def updater_config(official: Any, report: Report, path: str = 'kernel_updator_cfg') -> dict[str, Any]:
    """Our config of a ``KernelUpdator``."""
    with Options(official, path, report, 'KernelUpdator') as options:
        options.only('norm_cfg', dict(type='LN'))
        group, out = options.take('in_channels', 256), options.take('out_channels')
        options.only('feat_channels', group, default=64)  # with others, the official code fails
        return dict(type='knet_plugin.KernelUpdater', group_channels=group,
                    **(dict(out_channels=out) if out and out != group else {}),
                    **options.some('gate_sigmoid', 'gate_norm_act', 'activate_out'))


def update_head_config(official: Any, mask_activation: str, report: Report,
                       path: str = 'kernel_update_head[0]') -> dict[str, Any]:
    """Our config of a ``KernelUpdateHead``, without its losses.

    ``mask_activation`` is ``'SoftmaxMask'`` for a semantic head and ``'HardMask'`` for a detector's.
    """
    with Options(official, path, report, 'KernelUpdateHead') as options:
        channels = options.take('in_channels', 256)
        options.only('out_channels', channels, default=256)
        activation: dict[str, Any] = dict(type=f'knet_plugin.{mask_activation}')
        classifier: dict[str, Any] | None = None
        if mask_activation == 'HardMask':
            kernel_size = options.take('conv_kernel_size', 3)
            if 'hard_mask_thr' in official:
                activation['threshold'] = options.take('hard_mask_thr')
            classifier = dict(type='knet_plugin.KernelClassifier', num_classes=options.take('num_classes', 80),
                              num_fcs=options.take('num_cls_fcs', 1))
            options.skip(*LOSSES['KernelUpdateHead'], 'num_thing_classes', 'num_stuff_classes', 'mask_upsample_stride')
        else:
            kernel_size = options.take('conv_kernel_size', 1)
            options.drop('never read', 'num_classes', 'mask_upsample_stride', 'kernel_init')
        updater = updater_config(options.require('kernel_updator_cfg'), report, options.at('kernel_updator_cfg'))
        if kernel_size > 1 and updater['group_channels'] != channels:
            report.refuse(options.at('conv_kernel_size'), kernel_size, 'must be 1 with channel groups '
                          f'(kernel_updator_cfg.in_channels={updater["group_channels"]} for {channels} channels)')
        feedforward = options.take('feedforward_channels', 2048)
        interaction = dict(type='knet_plugin.KernelInteraction', num_heads=options.take('num_heads', 8),
                           feedforward_channels=feedforward if options.take('with_ffn', True) else None,
                           num_fcs=options.take('num_ffn_fcs', 2), dropout=options.take('dropout', 0.0))
        return dict(
            type='knet_plugin.KernelUpdateHead', channels=channels, kernel_size=kernel_size,
            mask_activation=activation, updater=updater, interaction=interaction, classifier=classifier,
            feat_transform=options.only('feat_transform_cfg', None, FEAT_TRANSFORM) is not None,
            mask_branch=dict(num_fcs=options.take('num_mask_fcs', 3),
                             stride=options.only('mask_transform_stride', 1, 2)))


def stages_config(official: Mapping | Sequence, num_stages: int, mask_activation: str, report: Report,
                  path: str) -> dict[str, Any] | list[dict[str, Any]]:
    """Our ``kernel_update_head``: one config if all stages are equal, otherwise a list."""
    if isinstance(official, Mapping):
        return update_head_config(official, mask_activation, report, path)
    if len(official) != num_stages:
        report.refuse(path, f'a list of {len(official)}', f'must have one config for each of num_stages={num_stages}')
    stages = [update_head_config(cfg, mask_activation, report, f'{path}[{i}]') for i, cfg in enumerate(official)]
    return stages[0] if stages and all(stage == stages[0] for stage in stages) else stages
