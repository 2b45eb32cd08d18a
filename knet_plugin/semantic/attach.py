"""Put K-Net on the decode head of any mmseg config."""

import copy
from collections.abc import Mapping
from pprint import pformat
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS

from knet_plugin.migration import Report
from knet_plugin.migration.migrate import importing_plugin
from knet_plugin.migration.options import bare_type
from knet_plugin.migration.semantic import decode_head_config
from knet_plugin.semantic.adapters import Refused, adapter_of
from knet_plugin.semantic.stage_rate import stage_custom_keys

__all__ = ['attach', 'attached_text']

OURS = 'knet_plugin.IterativeDecodeHead'


def attach(cfg: Config, num_stages: int = 3, kernel_update_head: Mapping[str, Any] | None = None,
           lr_mult: float | None = None) -> Config:
    """Put K-Net on the decode head of a config.

    In a cascade it goes on the last head that K-Net supports: the second of OCRNet, the first of PointRend. A K-Net,
    mmseg's or ours, gets further stages.

    Args:
        cfg: A config of mmseg with ``model.decode_head``. It is not changed.
        num_stages: Update stages.
        kernel_update_head: What differs from the default stage, for all new stages.
        lr_mult: Learning rate of the stages as a multiple of the optimizer's. None: see
            ``knet_plugin.semantic.stage_rate.stage_custom_keys``.

    Returns:
        The config with K-Net on its decode head, the rate of the stages in ``optim_wrapper``, and this package in
        ``custom_imports``.

    Raises:
        ValueError: If there is no decode head, or none that K-Net supports; the message gives the reason. If
            ``lr_mult`` is not positive, or nothing in the config reads it.
    """
    result = copy.deepcopy(cfg)
    index, head = _supported_head(cfg)
    attached = ConfigDict(_attached_head(head, num_stages, kernel_update_head))
    if index is None:
        result.model.decode_head = attached
    else:
        result.model.decode_head[index] = attached
    if keys := stage_custom_keys(cfg, lr_mult):
        paramwise = dict(cfg.optim_wrapper.get('paramwise_cfg') or {})
        paramwise['custom_keys'] = {**(paramwise.get('custom_keys') or {}), **keys}
        result.optim_wrapper.paramwise_cfg = copy.deepcopy(paramwise)
    result.custom_imports = importing_plugin(result.to_dict())['custom_imports']
    return result


def attached_text(base: str, cfg: Config, num_stages: int = 3, plugin: str | None = None,
                  lr_mult: float | None = None) -> str:
    """Source of a config that inherits from another and puts K-Net on it.

    Args:
        base: How the new file refers to the config: a relative path, or a name such as ``mmseg::fcn/NAME.py``.
        cfg: The config.
        num_stages: Update stages.
        plugin: Path of ``configs/_base_/plugin.py``, for this repository's configs. Others name the import themselves.
        lr_mult: As for ``attach``.

    Raises:
        ValueError: As for ``attach``.
    """
    index, head = _supported_head(cfg)
    old = '_base_.model.decode_head'
    target = old if index is None else f'{old}[{index}]'
    attached = _attached_head(head, num_stages, None)
    options = dict(num_stages=str(attached.pop('num_stages')))
    options['kernel_generate_head'] = f'{target}.kernel_generate_head' if _is_knet(head['type']) else target
    options |= {name: _literal(value) for name, value in attached.items() if name not in ('type', *options)}
    text = 'dict(\n        ' + ('_delete_=True, ' if index is None else '') + f"type='{OURS}'"
    text += ''.join(f',\n        {name}={value}' for name, value in options.items()) + ')'
    if index is not None:
        heads = [text if i == index else f'{old}[{i}]' for i in range(len(cfg.model.decode_head))]
        text = '[' + ', '.join(heads) + ']'
    imports = importing_plugin(cfg.to_dict())['custom_imports']
    bases = f'_base_ = [{plugin!r}, {base!r}]' if plugin else f'_base_ = {base!r}\ncustom_imports = {imports!r}'
    source = f'{bases}\n\nmodel = dict(\n    decode_head={text})\n'
    if keys := stage_custom_keys(cfg, lr_mult):
        source += f'optim_wrapper = dict(paramwise_cfg=dict(custom_keys={_literal(keys)}))\n'
    return source


def _supported_head(cfg: Config) -> tuple[int | None, dict[str, Any]]:
    """The last supported decode head and its place in a cascade (None if there is a single head)."""
    model: Any = cfg.get('model') or {}
    given: Any = model.get('decode_head')
    if not given:
        raise ValueError(f'there is no model.decode_head in model.type={model.get("type")!r}; K-Net goes on segmentors '
                         'of mmseg that have one (EncoderDecoder, CascadeEncoderDecoder)')
    heads = given if isinstance(given, list | tuple) else [given]
    reasons = []
    for index, head in reversed(list(enumerate(heads))):
        adapter = None if _is_knet(head['type']) else adapter_of(_class_of(head['type']))
        if not isinstance(adapter, Refused):
            return (None if heads[0] is given else index), head
        reasons.append(f'{bare_type(head["type"])}: {adapter.reason}')
    raise ValueError('K-Net does not support model.decode_head. ' + '; '.join(reasons))


def _class_of(kind: Any) -> type:
    """The class of a decode head's ``type``."""
    with DefaultScope.overwrite_default_scope('mmseg'):
        cls = MODELS.get(kind) if isinstance(kind, str) else kind
    if cls is None:
        raise ValueError(f'model.decode_head.type={kind!r} is not registered; import its module by custom_imports')
    return cls


def _is_knet(kind: Any) -> bool:
    """Whether a decode head is a K-Net, mmseg's or ours."""
    return bare_type(kind) == 'IterativeDecodeHead'


def _attached_head(head: Mapping[str, Any], num_stages: int,
                   kernel_update_head: Mapping[str, Any] | None) -> dict[str, Any]:
    """The config of a decode head with K-Net on it, or of a K-Net with further stages."""
    update = {} if kernel_update_head is None else dict(kernel_update_head=copy.deepcopy(dict(kernel_update_head)))
    if not _is_knet(head['type']):
        return dict(type=OURS, num_stages=num_stages, kernel_generate_head=copy.deepcopy(head), **update)
    report = Report()
    knet = copy.deepcopy(dict(head)) if head['type'] == OURS else decode_head_config(head, report)
    report.check()
    before = knet.get('num_stages', 3)
    stages = knet.get('kernel_update_head') or {}
    if update or isinstance(stages, list | tuple):
        stages = [stages] * before if isinstance(stages, Mapping) else list(stages)
        last = stages[-1] if stages else {}
        knet['kernel_update_head'] = stages + [update.get('kernel_update_head', last)] * num_stages
    return dict(knet, num_stages=before + num_stages)


def _literal(value: Any) -> str:
    """A value as source, indented for a config file."""
    plain = Config(dict(value=value)).to_dict()['value']
    return pformat(plain, width=100, sort_dicts=False).replace('\n', '\n        ')
