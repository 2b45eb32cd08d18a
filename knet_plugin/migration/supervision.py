"""Losses and assigners of the official detector. Their options have the same names here and in mmdet 3."""

from collections.abc import Mapping
from typing import Any

from knet_plugin.migration.options import Options, Report, bare_type
from knet_plugin.migration.update_head import LOSSES

__all__ = ['assigner_config', 'loss_config', 'train_config']


def loss_config(heads: Mapping[str, Mapping], report: Report) -> dict[str, Any]:
    """Our criterion for ``ConvKernelHead`` and ``KernelUpdateHead`` configs, by path. Their losses must agree."""
    criterion: dict[str, Any] = dict(type='knet_plugin.KNetCriterion')
    for path, head in heads.items():
        for name in LOSSES.get(bare_type(head['type']), ()):
            loss = head.get(name)
            ours: Any = loss and dict(loss, type=f'mmdet.{bare_type(loss["type"])}')
            if ours is None and name != 'loss_rank':
                report.refuse(f'{path}.{name}', None, 'must be given')
            elif criterion.setdefault(name, ours) != ours:
                report.refuse(f'{path}.{name}', loss, 'must be the same in all heads')
            elif name != 'loss_rank' and not ours.get('use_sigmoid', ours['type'] != 'mmdet.CrossEntropyLoss'):
                report.refuse(f'{path}.{name}.use_sigmoid', False, 'must be True')
    return {name: value for name, value in criterion.items() if value is not None}


def assigner_config(official: Any, report: Report, path: str = 'assigner') -> dict[str, Any]:
    """Our config of a ``MaskHungarianAssigner``."""
    with Options(official, path, report, 'MaskHungarianAssigner') as options:
        costs = {}
        for name, scope in dict(cls_cost='mmdet', mask_cost='knet_plugin', dice_cost='knet_plugin').items():
            cost = options.require(name)
            costs[name] = dict(cost, type=f'{scope}.{bare_type(cost["type"])}')
        for name in ('mask_cost', 'dice_cost'):
            costs[name].setdefault('pred_act', False)
        return dict(type='knet_plugin.MaskHungarianAssigner', topk=options.take('topk', 1), **costs)


def train_config(official: Any, report: Report, path: str) -> dict[str, Any]:
    """Our ``train_cfg``. All stages share one assigner, so the official ones must agree."""
    if official is None:
        return {}
    with Options(official, path, report) as options:
        parts = {options.at('rpn'): options.require('rpn')}
        parts |= {options.at(f'rcnn[{i}]'): part for i, part in enumerate(options.require('rcnn') or [])}
    assigners = []
    for where, part in parts.items():
        with Options(part, where, report) as options:
            assigners.append(assigner_config(options.require('assigner'), report, options.at('assigner')))
            if assigners[-1] != assigners[0]:
                report.refuse(options.at('assigner'), part['assigner'], f'must equal {path}.rpn.assigner')
            options.drop('all kernels are trained', 'sampler')
            options.only('pos_weight', 1, 0, -1)  # all mean 1
    return dict(assigner=assigners[0])
