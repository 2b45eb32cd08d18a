"""From a checkpoint of the official release or of mmseg to one of ours, and back, with a report."""

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmdet.models.backbones.swin import swin_converter
from torch import Tensor, nn

from knet_plugin.checkpoint.hints import COMPUTED
from knet_plugin.checkpoint.key_map import from_official, to_official
from knet_plugin.checkpoint.reading import read_checkpoint, weights_of
from knet_plugin.version import __version__

__all__ = ['Report', 'convert_checkpoint', 'convert_weights', 'modern_swin']


@dataclass
class Report:
    """What became of every weight."""

    mapped: dict[str, str] = field(default_factory=dict)
    """Name in the source -> name in the result."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Name in the source -> why it is left out."""

    def __str__(self) -> str:
        renamed = sum(source != target for source, target in self.mapped.items())
        lines = [f'{len(self.mapped)} weights, {renamed} of them renamed; {len(self.dropped)} dropped']
        reasons: dict[str, list[str]] = {}
        for key, reason in self.dropped.items():
            reasons.setdefault(reason, []).append(key)
        for reason, keys in reasons.items():
            more = f' and {len(keys) - 3} more' if len(keys) > 3 else ''
            lines.append(f'  dropped, {reason}: ' + ', '.join(keys[:3]) + more)
        return '\n'.join(lines)


def modern_swin(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring the backbone of the original Swin code to the hosts' layout, by mmdet's own converter.

    Names change, and the downsampling layers' input channels change their order. Other backbones stay as they are.

    Args:
        state_dict: Weights of a whole model.

    Returns:
        The same weights, the backbone in the layout of mmdet's and mmseg's ``SwinTransformer``.
    """
    if not any(key.startswith('backbone.layers.') for key in state_dict):
        return dict(state_dict)
    prefix = 'backbone.'
    others = {key: value for key, value in state_dict.items() if not key.startswith(prefix)}
    swin = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
    return {**swin_converter(swin), **others}


def convert_weights(state_dict: Mapping[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], Report]:
    """Bring weights to the names and the layout of a model of ours.

    Args:
        state_dict: Weights of the official release (mmdet 2, mmseg 0.x), of mmseg's own K-Net, or already ours.
        model: The model that is to have them. It is not changed.

    Returns:
        The weights of the model, all of them, and a report.

    Raises:
        ValueError: If a weight is unknown, missing or of another shape; the message lists every one, with a hint.
    """
    own = model.state_dict()
    report = Report()
    weights = {}
    for key, value in modern_swin(state_dict).items():
        if key not in own and key.endswith(COMPUTED):
            report.dropped[key] = 'computed when the model is built'
        else:
            weights[key] = value
    modules = {key.rpartition('.')[0] for key in weights}
    for key, value in own.items():  # older hosts did not keep these
        if key not in weights and key.endswith(COMPUTED) and key.rpartition('.')[0] in modules:
            weights[key] = value
    converted = from_official(weights, model)
    report.mapped = dict(zip(weights, converted, strict=True))
    return converted, report


def convert_checkpoint(source: str | Path, target: str | Path, model: nn.Module, *, to: str = 'ours',
                       averaged: bool = False, trust: bool = False, meta: Mapping[str, Any] | None = None) -> Report:
    """Convert a file. The target appears complete or not at all; one that is there is replaced only then.

    Args:
        source: Checkpoint to read.
        target: File to write: ``meta`` and ``state_dict``.
        model: Our model that the weights are for. It is not changed.
        to: ``'ours'``, or ``'official'`` for the names of the official release and of mmseg.
        averaged: Whether to take the running average (EMA) of the weights.
        trust: Whether the source may execute code while it is read.
        meta: Written beside the weights. Its ``dataset_meta`` counts where the source says no classes.

    Returns:
        What became of every weight.

    Raises:
        FileNotFoundError: There is no such source.
        ValueError: If the source is no checkpoint, or does not fit the model.
    """
    if to not in ('ours', 'official'):
        raise ValueError(f"to must be 'ours' or 'official', got to={to!r}")
    content = read_checkpoint(source, trust)
    weights, report = convert_weights(weights_of(content, averaged), model)
    if to == 'official':
        weights = to_official(weights, model)
        report.mapped = dict(zip(report.mapped, weights, strict=True))
    written = dict(meta or {}, source=Path(source).name, knet_plugin=__version__)
    if dataset_meta := _dataset_meta(content.get('meta')):
        given = written.get('dataset_meta', {})
        agree = tuple(given.get('classes', ())) == tuple(dataset_meta.get('classes') or ())
        written['dataset_meta'] = {**given, **dataset_meta} if agree else dataset_meta
    result = dict(meta=written, state_dict=weights)
    target = Path(target)
    draft = target.with_name(f'.{target.name}.{uuid.uuid4().hex}')
    if not target.parent.is_dir():
        raise FileNotFoundError(f'there is no folder {target.parent}')
    try:
        torch.save(result, draft)
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
    return report


def _dataset_meta(meta: Any) -> dict[str, Any]:
    """Classes and palette as mmdet 3 and mmseg 1 look for them."""
    if not isinstance(meta, Mapping):
        return {}
    if isinstance(meta.get('dataset_meta'), Mapping):
        return dict(meta['dataset_meta'])
    return {name.lower(): meta[name] for name in ('CLASSES', 'PALETTE') if meta.get(name) is not None}
