"""What trains the official detector: its losses, and the assigners that match kernels and objects."""

from collections.abc import Mapping
from typing import Any

from knet_plugin.migration.options import Options, Report, bare_type
from knet_plugin.migration.update_head import LOSSES

__all__ = ['assigner_config', 'loss_config', 'train_config']

# Options of the losses that mean the same in mmdet 3.
LOSS_OPTIONS = {
    'CrossEntropyLoss': ('use_sigmoid', 'reduction', 'class_weight', 'ignore_index', 'loss_weight', 'avg_non_ignore'),
    'FocalLoss': ('use_sigmoid', 'gamma', 'alpha', 'reduction', 'loss_weight', 'activated'),
    'DiceLoss': ('activate', 'reduction', 'naive_dice', 'loss_weight', 'eps'),
}
SAMPLER = 'MaskPseudoSampler'


def loss_config(heads: Mapping[str, Mapping], report: Report) -> dict[str, Any]:
    """Our config of the losses that the heads have, which must agree where several have one.

    Args:
        heads: ``ConvKernelHead`` and ``KernelUpdateHead`` configs by their paths.
        report: Where to note what is dropped or refused.
    """
    losses: dict[str, Any] = {}
    for name in LOSSES:
        first = None
        for path, head in heads.items():
            is_stage = bare_type(head['type']) == 'KernelUpdateHead'
            if (name == 'loss_cls' and not is_stage) or (name == 'loss_seg' and is_stage):
                continue
            given = head.get(name)
            if not given and name != 'loss_rank':
                report.refuse(f'{path}.{name}', given, 'must be given')
                continue
            ours = _loss(given, report, f'{path}.{name}') if given else None
            if first is None:
                first = f'{path}.{name}'
                losses[name] = ours
            elif ours != losses[name]:
                report.refuse(f'{path}.{name}', given, f'must be the same as {first}: all stages share their losses')
    if losses.get('loss_rank', True) is None:
        losses.pop('loss_rank')
    return dict(type='knet_plugin.KNetCriterion', **losses)


def _loss(official: Any, report: Report, path: str) -> dict[str, Any]:
    with Options(official, path, report) as options:
        kind = options.only_type(*LOSS_OPTIONS)
        cfg = dict(type=f'mmdet.{kind}') | options.some(*LOSS_OPTIONS.get(kind, ()))
        if kind == 'DiceLoss':
            options.only('use_sigmoid', True, 'the loss takes logits')
            options.only('numerator_eps', 0, 'only 0 is supported')
        elif kind == 'CrossEntropyLoss':
            options.only('use_mask', False, 'only use_sigmoid (masks) and softmax (loss_rank) are supported')
        if path.endswith(('loss_cls', 'loss_seg', 'loss_mask')) and kind != 'DiceLoss' and not cfg.get(
                'use_sigmoid', kind == 'FocalLoss'):
            report.refuse(f'{path}.use_sigmoid', cfg.get('use_sigmoid'), 'must be True: kernels have sigmoid scores')
    return cfg


def assigner_config(official: Any, report: Report, path: str = 'assigner') -> dict[str, Any]:
    """Our config of a ``MaskHungarianAssigner``.

    Args:
        official: Its config.
        report: Where to note what is dropped or refused.
        path: Where the config is, for messages.
    """
    with Options(official, path, report) as options:
        options.only_type('MaskHungarianAssigner')
        cfg: dict[str, Any] = dict(type='knet_plugin.MaskHungarianAssigner')
        with Options(options.require('cls_cost'), options.at('cls_cost'), report) as cost:
            cfg['cls_cost'] = dict(type=f'mmdet.{cost.only_type("FocalLossCost")}') | cost.some(
                'weight', 'alpha', 'gamma', 'eps', 'binary_input')
        for name, kind in dict(mask_cost='MaskCost', dice_cost='DiceCost').items():
            with Options(options.require(name), options.at(name), report) as cost:
                ours: dict[str, Any] = dict(type=f'knet_plugin.{cost.only_type(kind)}')
                ours |= cost.some('weight', 'act_mode', *(['eps'] if kind == 'DiceCost' else []))
                ours['pred_act'] = cost.take('pred_act', False)
                cfg[name] = ours
        if (boundary := options.take('boundary_cost')) is not None:
            report.refuse(options.at('boundary_cost'), boundary, 'there is no such cost')
        cfg['topk'] = options.take('topk', 1)
    return cfg


def train_config(official: Any, report: Report, path: str) -> dict[str, Any]:
    """Our ``train_cfg``. There is one assigner for all stages, so they must all be the same.

    Args:
        official: The detector's ``train_cfg``.
        report: Where to note what is dropped or refused.
        path: Where the config is, for messages.
    """
    if official is None:
        return {}
    with Options(official, path, report) as options:
        parts = {f'{path}.rpn': options.require('rpn')}
        parts |= {f'{path}.rcnn[{i}]': part for i, part in enumerate(options.require('rcnn') or [])}
    assigners = {}
    for where, part in parts.items():
        with Options(part, where, report) as options:
            assigners[where] = assigner_config(options.require('assigner'), report, f'{where}.assigner')
            sampler = options.take('sampler')
            if sampler is not None:
                with Options(sampler, f'{where}.sampler', report) as inner:
                    inner.only_type(SAMPLER)
                report.drop(f'{where}.sampler', sampler, 'all kernels are trained')
            if not where.endswith('.rpn') and part.get('pos_weight', 1) not in (-1, 0, 1):
                report.refuse(f'{where}.pos_weight', part['pos_weight'], 'only 1 is supported')
            options.drop(['pos_weight'], 'every kernel has weight 1')
    first = assigners[f'{path}.rpn']
    for where, assigner in assigners.items():
        if assigner != first:
            report.refuse(f'{where}.assigner', assigner, f'must be the same as {path}.rpn.assigner')
    return dict(assigner=first)
