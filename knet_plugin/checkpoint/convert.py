"""Converts checkpoints of the official release or of mmseg to ours, and back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from knet_plugin import __version__
from knet_plugin.checkpoint.key_map import from_official, modern_swin, to_official
from knet_plugin.checkpoint.mismatch import COMPUTED
from knet_plugin.checkpoint.reading import read_checkpoint, weights_of
from knet_plugin.checkpoint.whole_file import whole_file

__all__ = ['ConversionReport', 'convert_checkpoint', 'convert_weights']


@dataclass
class ConversionReport:
    """What happened to every weight."""

    mapped: dict[str, str] = field(default_factory=dict)  # name in the source -> name in the result
    dropped: dict[str, str] = field(default_factory=dict)  # name in the source -> why it is left out

    def __str__(self) -> str:
        renamed = sum(source != target for source, target in self.mapped.items())
        lines = [f'{len(self.mapped)} weights, {renamed} of them renamed; {len(self.dropped)} dropped']
        for reason in dict.fromkeys(self.dropped.values()):
            keys = [key for key, why in self.dropped.items() if why == reason]
            lines.append(f'  dropped, {reason}: {", ".join(keys[:3])}{", ..." if len(keys) > 3 else ""}')
        return '\n'.join(lines)


def convert_weights(state_dict: Mapping[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], ConversionReport]:
    """Convert weights of the official release (mmdet 2, mmseg 0.x), of mmseg or ours to the names that ``model`` has.

    Raises:
        ValueError: Weights are unknown, missing or of another shape. The message lists all of them.
    """
    own, report = model.state_dict(), ConversionReport()
    weights: dict[str, Tensor] = {}
    sources: dict[str, str] = {}  # name in ``weights`` -> name in ``state_dict``
    for source, (key, value) in zip(state_dict, modern_swin(state_dict, model).items(), strict=True):
        if key not in own and key.endswith(COMPUTED):
            report.dropped[source] = 'computed when the model is built'
        else:
            weights[key], sources[key] = value, source
    modules = {key.rpartition('.')[0] for key in weights}
    # Older hosts did not save these buffers.
    weights |= {key: value for key, value in own.items() if key not in weights and key.endswith(COMPUTED)
                and key.rpartition('.')[0] in modules}
    converted = from_official(weights, model)
    report.mapped = {sources.get(key, key): target for key, target in zip(weights, converted, strict=True)}
    return converted, report


def convert_checkpoint(source: str | Path, target: str | Path, model: nn.Module, *, to: str = 'ours',
                       trust: bool | None = None, meta: Mapping[str, Any] | None = None) -> ConversionReport:
    """Convert the file ``source`` to the file ``target``, which appears complete or not at all.

    Args:
        model: Our model that the weights belong to. It does not change.
        to: ``'ours'``, or ``'official'`` for the names of the official release and of mmseg.
        trust: Allow the source to run code, see ``load_file``.
        meta: Further items of ``meta``. Its ``dataset_meta`` counts if the source has no classes.

    Raises:
        ValueError: ``to`` is unknown, or the source is no checkpoint or does not fit the model.
        OSError: The source is missing or the target cannot be written.
    """
    if to not in ('ours', 'official'):
        raise ValueError(f"to must be 'ours' or 'official', got to={to!r}")
    content = read_checkpoint(source, trust)
    state_dict, dropped = weights_of(content)
    weights, report = convert_weights(state_dict, model)
    report.dropped |= dropped
    written = {**(meta or {}), 'source': Path(source).name, 'knet_plugin': __version__}
    if dataset_meta := _dataset_meta(content.get('meta')):
        given = written.get('dataset_meta', {})
        same_classes = tuple(given.get('classes', ())) == dataset_meta.get('classes')
        written['dataset_meta'] = (given if same_classes else {}) | dataset_meta
    if to == 'official':
        weights = to_official(weights, model)
        report.mapped = dict(zip(report.mapped, weights, strict=True))
        # mmdet 2 and mmseg 0.x look for these.
        written |= {name.upper(): value for name, value in written.get('dataset_meta', {}).items()
                    if name in ('classes', 'palette')}
    try:
        with whole_file(target) as draft:
            torch.save(dict(meta=written, state_dict=weights), draft)
    except RuntimeError as error:  # torch's writer raises it for a missing folder or a full disk
        raise OSError(f'{target} cannot be written: {error}') from error
    return report


def _dataset_meta(meta: Any) -> dict[str, Any]:
    """Return classes and palette as mmdet 3 and mmseg 1 expect them, in types that load without trust."""
    if not isinstance(meta, Mapping):
        return {}
    given = meta['dataset_meta'] if isinstance(meta.get('dataset_meta'), Mapping) else {
        name.lower(): meta[name] for name in ('CLASSES', 'PALETTE') if meta.get(name) is not None}
    result: dict[str, Any] = {name: tuple(map(str, given[name]))
                              for name in ('classes', 'thing_classes', 'stuff_classes') if name in given}
    if given.get('palette') is not None:
        result['palette'] = [tuple(int(value) for value in color) for color in given['palette']]
    return result
