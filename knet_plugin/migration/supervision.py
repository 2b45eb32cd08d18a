"""What trains the official detector: its losses and assigners."""

from collections.abc import Mapping
from typing import Any

from knet_plugin.migration.options import Options, Report, bare_type
from knet_plugin.migration.update_head import LOSSES

__all__ = ['assigner_config', 'loss_config', 'train_config']

# Options of the losses that are the same in mmdet 3.
LOSS_OPTIONS = {
    'CrossEntropyLoss': ('use_sigmoid', 'reduction', 'class_weight', 'ignore_index', 'loss_weight', 'avg_non_ignore'),
    'FocalLoss': ('use_sigmoid', 'gamma', 'alpha', 'reduction', 'loss_weight', 'activated'),
    'DiceLoss': ('activate', 'reduction', 'naive_dice', 'loss_weight', 'eps'),
}


def loss_config(heads: Mapping[str, Mapping], report: Report) -> dict[str, Any]:
    """Our criterion for ``ConvKernelHead`` and ``KernelUpdateHead`` configs, by path, whose losses must agree."""
    criterion: dict[str, Any] = dict(type='knet_plugin.KNetCriterion')
    for name in LOSSES:
        without = dict(loss_cls='ConvKernelHead', loss_seg='KernelUpdateHead').get(name)
        owners = {path: head for path, head in heads.items() if bare_type(head['type']) != without}
        found = {path: _loss(head[name], name, report, f'{path}.{name}') if head.get(name) else None
                 for path, head in owners.items()}
        for path, ours in found.items():
            if ours is None and name != 'loss_rank':
                report.refuse(f'{path}.{name}', None, 'must be given')
            elif ours != next(iter(found.values())):
                report.refuse(f'{path}.{name}', heads[path].get(name), f'must equal {next(iter(found))}.{name}')
        if (ours := next(iter(found.values()), None)) is not None:
            criterion[name] = ours
    return criterion


def _loss(official: Any, name: str, report: Report, path: str) -> dict[str, Any]:
    """Our config of one loss. Scores are sigmoids, but for ``loss_rank``."""
    with Options(official, path, report, *LOSS_OPTIONS) as options:
        if options.type == 'DiceLoss':
            options.only('use_sigmoid', True)
        cfg: dict[str, Any] = dict(type=f'mmdet.{options.type}', **options.some(*LOSS_OPTIONS.get(options.type, ())))
    sigmoid = cfg.get('use_sigmoid', options.type != 'CrossEntropyLoss')
    if name != 'loss_rank' and not sigmoid:
        report.refuse(f'{path}.use_sigmoid', sigmoid, 'must be True')
    return cfg


def assigner_config(official: Any, report: Report, path: str = 'assigner') -> dict[str, Any]:
    """Our config of a ``MaskHungarianAssigner``."""
    with Options(official, path, report, 'MaskHungarianAssigner') as options:
        with Options(options.require('cls_cost'), options.at('cls_cost'), report, 'FocalLossCost') as cost:
            cls_cost = dict(type='mmdet.FocalLossCost', **cost.some('weight', 'alpha', 'gamma', 'eps', 'binary_input'))
        with Options(options.require('mask_cost'), options.at('mask_cost'), report, 'MaskCost') as cost:
            mask_cost = dict(type='knet_plugin.MaskCost', pred_act=cost.take('pred_act', False),
                             **cost.some('weight', 'act_mode'))
        with Options(options.require('dice_cost'), options.at('dice_cost'), report, 'DiceCost') as cost:
            dice_cost = dict(type='knet_plugin.DiceCost', pred_act=cost.take('pred_act', False),
                             **cost.some('weight', 'act_mode', 'eps'))
        return dict(type='knet_plugin.MaskHungarianAssigner', cls_cost=cls_cost, mask_cost=mask_cost,
                    dice_cost=dice_cost, topk=options.take('topk', 1))


def train_config(official: Any, report: Report, path: str) -> dict[str, Any]:
    """Our ``train_cfg``. All stages share one assigner, so the official ones must agree."""
    if official is None:
        return {}
    with Options(official, path, report) as options:
        parts = {f'{path}.rpn': options.require('rpn')}
        parts |= {f'{path}.rcnn[{i}]': part for i, part in enumerate(options.require('rcnn') or [])}
    assigners = []
    for where, part in parts.items():
        with Options(part, where, report) as options:
            assigners.append(assigner_config(options.require('assigner'), report, f'{where}.assigner'))
            if assigners[-1] != assigners[0]:
                report.refuse(f'{where}.assigner', part['assigner'], f'must equal {path}.rpn.assigner')
            options.drop('all kernels are trained', 'sampler')
            options.only('pos_weight', 1, 0, -1)  # all mean 1
    return dict(assigner=assigners[0])
