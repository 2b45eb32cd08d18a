"""From a checkpoint of the official release or of mmseg to one of ours, and back, with a report."""

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from knet_plugin.checkpoint.mismatch import COMPUTED
from knet_plugin.checkpoint.key_map import from_official, modern_swin, to_official
from knet_plugin.checkpoint.reading import read_checkpoint, weights_of
from knet_plugin.version import __version__

__all__ = ['Report', 'convert_checkpoint', 'convert_weights']


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
    weights: dict[str, Tensor] = {}
    sources: dict[str, str] = {}  # name in ``weights`` -> name in the source
    # Name by name, so that the report can say what became of each.
    for source, (key, value) in zip(state_dict, modern_swin(state_dict, model).items(), strict=True):
        if key not in own and key.endswith(COMPUTED):
            report.dropped[source] = 'computed when the model is built'
        else:
            weights[key], sources[key] = value, source
    modules = {key.rpartition('.')[0] for key in weights}
    for key, value in own.items():  # older hosts did not keep these
        if key not in weights and key.endswith(COMPUTED) and key.rpartition('.')[0] in modules:
            weights[key] = value
    converted = from_official(weights, model)
    report.mapped = {sources.get(key, key): target for key, target in zip(weights, converted, strict=True)}
    return converted, report


def convert_checkpoint(source: str | Path, target: str | Path, model: nn.Module, *, to: str = 'ours',
                       averaged: bool = False, trust: bool | None = None,
                       meta: Mapping[str, Any] | None = None) -> Report:
    """Convert a file. The target appears complete or not at all; one that is there is replaced only then.

    Args:
        source: Checkpoint to read.
        target: File to write: ``meta`` and ``state_dict``.
        model: Our model that the weights are for. It is not changed.
        to: ``'ours'``, or ``'official'`` for the names of the official release and of mmseg.
        averaged: Whether to take the running average (EMA) of the weights; see ``weights_of``.
        trust: Whether the source may execute code while it is read; see ``read_checkpoint``.
        meta: Written beside the weights. Its ``dataset_meta`` counts where the source says no classes.

    Returns:
        What became of every weight.

    Raises:
        FileNotFoundError: There is no such source, or no such folder to write to.
        OSError: The target cannot be written.
        ValueError: If the source is no checkpoint, or does not fit the model.
    """
    if to not in ('ours', 'official'):
        raise ValueError(f"to must be 'ours' or 'official', got to={to!r}")
    target = Path(target)
    if not target.parent.is_dir():
        raise FileNotFoundError(f'there is no folder {target.parent}')
    content = read_checkpoint(source, trust)
    state_dict, dropped = weights_of(content, averaged)
    weights, report = convert_weights(state_dict, model)
    report.dropped |= dropped
    if to == 'official':
        weights = to_official(weights, model)
        report.mapped = dict(zip(report.mapped, weights, strict=True))
    written = dict(meta or {}, source=Path(source).name, knet_plugin=__version__)
    if dataset_meta := _dataset_meta(content.get('meta')):
        given = written.get('dataset_meta', {})
        agree = tuple(given.get('classes', ())) == dataset_meta.get('classes')
        written['dataset_meta'] = {**given, **dataset_meta} if agree else dataset_meta
    if to == 'official':  # where mmdet 2 and mmseg 0.x look
        written |= {name.upper(): value for name, value in written.get('dataset_meta', {}).items()
                    if name in ('classes', 'palette')}
    result = dict(meta=written, state_dict=weights)
    draft = target.with_name(f'.{target.name}.{uuid.uuid4().hex}')
    try:
        torch.save(result, draft)
        # Nothing is replaced by a file that cannot be read, or has other numbers.
        torch.testing.assert_close(read_checkpoint(draft, trust=False)['state_dict'], weights, rtol=0, atol=0,
                                   equal_nan=True)
        os.replace(draft, target)
    except RuntimeError as error:  # torch's writer: the disk is full, for instance
        raise OSError(f'{target} cannot be written: {error}') from error
    finally:
        draft.unlink(missing_ok=True)
    return report


def _dataset_meta(meta: Any) -> dict[str, Any]:
    """Classes and palette as mmdet 3 and mmseg 1 look for them."""
    if not isinstance(meta, Mapping):
        return {}
    given = meta['dataset_meta'] if isinstance(meta.get('dataset_meta'), Mapping) else {
        name.lower(): meta[name] for name in ('CLASSES', 'PALETTE') if meta.get(name) is not None}
    # As plain values: arrays and numpy's strings could not be read without trust.
    result: dict[str, Any] = {name: tuple(map(str, given[name])) for name in ('classes', 'thing_classes',
                                                                              'stuff_classes') if name in given}
    if given.get('palette') is not None:
        result['palette'] = [tuple(int(value) for value in color) for color in given['palette']]
    return result
