"""Reads the options of foreign configs so that none is overlooked, and reports those that have no counterpart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ['MigrationError', 'Options', 'Report', 'bare_type']

RELU = dict(type='ReLU')
# Options with a single supported value, which is also their default, in whatever part they occur.
FIXED = dict(act_cfg=RELU, ffn_act_cfg=RELU, out_act_cfg=RELU, boundary_cost=None, conv_cfg=None, end_level=3,
             feat_gather_stride=1, feat_refine_stride=1, hard_target=False, ignore_label=255, kernel_init=False,
             post_assign=False, recursive=False, semantic_fpn=True, start_level=0)
# Options that the official code accepts but never uses, in all parts whose migration does not take them.
UNUSED = {'att_dropout', 'feat_embed_only', 'feat_transform_cfg', 'input_feat_shape', 'iou_thr',
          'loss_cls', 'mask_assign_stride', 'mask_out_stride', 'mask_roi_extractor', 'mask_thr', 'merge_cls_scores',
          'merge_stuff_thing', 'num_cls_fcs', 'num_heads', 'proposal_feature_channel', 'relative_coors',
          'relative_coors_off', 'return_list', 'rpn', 'stuff_max_area', 'stuff_score_thr', 'test_cfg',
          'thing_label_in_seg', 'train_cfg', 'with_embed'}


class MigrationError(ValueError):
    """A config cannot be migrated. The message lists every option in the way with its path and value."""


class Report:
    """What a migration leaves out (``remarks``) and what prevents it (``problems``)."""

    def __init__(self) -> None:
        self.remarks: list[str] = []
        self.problems: list[str] = []

    def drop(self, path: str, value: Any, reason: str) -> None:
        """Note an option without effect."""
        self.remarks.append(f'dropped  {path}={_short(value)}: {reason}')

    def by_hand(self, path: str, value: Any, reason: str) -> None:
        """Note an option that the user must translate."""
        self.remarks.append(f'by hand  {path}={_short(value)}: {reason}')

    def refuse(self, path: str, value: Any, reason: str) -> None:
        """Note an option that cannot be migrated; ``check`` raises it."""
        self.problems.append(f'{path}={value!r}: {reason}')

    def check(self) -> None:
        """Raise a MigrationError if anything was refused."""
        if self.problems:
            raise MigrationError('the config cannot be migrated:\n  ' + '\n  '.join(self.problems))

    def lines(self) -> list[str]:
        """The remarks, by hand first. Those that several stages share are merged (``[*]``)."""
        return sorted(dict.fromkeys(re.sub(r'\[\d+\]', '[*]', remark, count=1) for remark in self.remarks),
                      key=lambda line: line.startswith('dropped'))


class Options:
    """The options of one foreign dict. At the end of the ``with`` block, those not taken are dropped or refused.

    Args:
        cfg: The dict. It is not changed.
        path: Its place in the config, for messages.
        report: Receives what is dropped or refused.
        kind: The supported ``type``, without scope. None: the dict has no type.
    """

    def __init__(self, cfg: Any, path: str, report: Report, kind: str | None = None) -> None:
        if not isinstance(cfg, Mapping):
            raise MigrationError(f'{path} must be a dict, got {cfg!r}')
        self._left = dict(cfg)
        self.path = path
        self.report = report
        if kind is not None and (given := bare_type(self._left.pop('type', None))) != kind:
            report.refuse(self.at('type'), given, f'only {kind} is supported')

    def __enter__(self) -> Options:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is not None:
            return
        for name, value in self._left.items():
            if isinstance(value, Mapping) and name.endswith('act_cfg'):
                value = {key: item for key, item in value.items() if key != 'inplace'}
            if name in UNUSED:
                self.report.drop(self.at(name), value, 'never read')
            elif name not in FIXED:
                self.report.refuse(self.at(name), value, 'unknown option')
            elif value != FIXED[name]:
                self.report.refuse(self.at(name), value, f'only {FIXED[name]!r} is supported')

    def at(self, name: str) -> str:
        """The full path of an option."""
        return f'{self.path}.{name}'

    def take(self, name: str, default: Any = None) -> Any:
        """The value of an option, or the foreign code's default."""
        return self._left.pop(name, default)

    def require(self, name: str) -> Any:
        """The value of an option that must be there."""
        if name not in self._left:
            raise MigrationError(f'{self.at(name)} is missing')
        return self._left.pop(name)

    def some(self, *names: str) -> dict[str, Any]:
        """Those of the options that are given. They have the same names and defaults here."""
        return {name: self._left.pop(name) for name in names if name in self._left}

    def skip(self, *names: str) -> None:
        """Ignore options that the caller reads itself, or that repeat another part of the config."""
        self.some(*names)

    def drop(self, reason: str, *names: str) -> None:
        """Report options without effect."""
        for name, value in self.some(*names).items():
            self.report.drop(self.at(name), value, reason)

    def only(self, name: str, *supported: Any, default: Any = None) -> Any:
        """Take an option, and refuse unsupported values. Unless given, the default is the first supported one."""
        value = self._left.pop(name, supported[0] if default is None else default)
        if value not in supported:
            self.report.refuse(self.at(name), value, f'only {" or ".join(map(repr, supported))} is supported')
        return value


def bare_type(given: Any) -> str:
    """A registered name without its scope, or the name of a class."""
    return given.rpartition('.')[2] if isinstance(given, str) else getattr(given, '__name__', str(given))


def _short(value: Any) -> str:
    """A value in at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f'{text[:77]}...'
