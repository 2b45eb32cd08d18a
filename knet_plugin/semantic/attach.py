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
from knet_plugin.semantic.iterative_decode_head import IterativeDecodeHead
from knet_plugin.semantic.adapters import Refused, adapter_of
from knet_plugin.semantic.stage_config import default_stage_config, without_defaults

__all__ = ['attach', 'attached_text']

OURS = 'knet_plugin.IterativeDecodeHead'


def attach(cfg: Config, num_stages: int = 3, kernel_update_head: Mapping[str, Any] | None = None) -> Config:
    """Put K-Net on the decode head of a config of mmseg.

    In a cascade it goes on the last head that has a classifier: the second of OCRNet, the first of PointRend. On a
    K-Net, mmseg's or ours, the stages are further ones.

    Args:
        cfg: A config with ``model.decode_head``. It is not changed.
        num_stages: Update stages.
        kernel_update_head: What differs from the defaults of a stage.

    Returns:
        The same config but for the decode head, and for ``custom_imports``, which name this package.

    Raises:
        TypeError: If ``cfg`` is no ``Config``, or ``kernel_update_head`` no dict.
        ValueError: If there is no decode head, or one that K-Net does not go on; the message says why.
    """
    result = copy.deepcopy(cfg)
    index, head = _place(cfg)
    attached = ConfigDict(_attached_head(head, num_stages, kernel_update_head))
    if index is None:
        result.model.decode_head = attached
    else:
        result.model.decode_head[index] = attached
    result.custom_imports = importing_plugin(result.to_dict())['custom_imports']
    return result


def attached_text(base: str, cfg: Config, num_stages: int = 3, plugin: str | None = None) -> str:
    """The smallest config file that inherits from a config and puts K-Net on it.

    Args:
        base: How the file finds the config: a relative path, or a name such as ``mmseg::fcn/NAME.py``.
        cfg: The config.
        num_stages: Update stages.
        plugin: Path of ``configs/_base_/plugin.py``, for files that lie beside it.

    Returns:
        Source of the file.

    Raises:
        ValueError: As ``attach``.
    """
    index, head = _place(cfg)
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
    bases = f'_base_ = [{plugin!r}, {base!r}]' if plugin else (
        f'_base_ = {base!r}\ncustom_imports = dict(imports={imports["imports"]}, allow_failed_imports='
        f'{imports["allow_failed_imports"]})')
    return f'{bases}\n\nmodel = dict(\n    decode_head={text})\n'


def _place(cfg: Config) -> tuple[int | None, dict[str, Any]]:
    """Where the head is in a cascade (None without one), and the head."""
    if not isinstance(cfg, Config):
        raise TypeError(f'cfg must be a Config of mmengine, got {type(cfg).__name__}: read it with Config.fromfile')
    model: Any = {} if cfg.get('model') is None else cfg.model
    if not isinstance(model, Mapping):
        raise ValueError(f'model must be a dict, got model={model!r}')
    head: Any = model.get('decode_head')
    if head is None:
        raise ValueError(f'there is no model.decode_head; model.type={model.get("type")!r} is no segmentor of mmseg '
                         'that has one (EncoderDecoder, CascadeEncoderDecoder)')
    heads = (list(head) if isinstance(head, list | tuple) else [head]) or [None]
    reasons = []
    for index in reversed(range(len(heads))):
        if not (isinstance(heads[index], Mapping) and heads[index].get('type')):
            raise ValueError(f'model.decode_head must be a decode head\'s config or a list of such, got {head!r}')
        reason = _refusal(heads[index]['type'])
        if reason is None:
            return (index if isinstance(head, list | tuple) else None), heads[index]
        reasons.append(f'{bare_type(heads[index]["type"])}: {reason}')
    raise ValueError('K-Net does not go on this decode head. ' + '; '.join(reasons))


def _refusal(kind: Any) -> str | None:
    """Why K-Net does not go on a head, if so."""
    if _is_knet(kind):
        return None
    if isinstance(kind, str):
        with DefaultScope.overwrite_default_scope('mmseg'):
            cls = MODELS.get(kind)
        if cls is None:
            raise ValueError(f'model.decode_head.type={kind!r} is not registered: do the config\'s custom_imports '
                             'name its module?')
        kind = cls
    if not isinstance(kind, type):
        raise ValueError(f'model.decode_head.type must be a class or its name, got {kind!r}')
    adapter = adapter_of(kind)
    return adapter.reason if isinstance(adapter, Refused) else None


def _is_knet(kind: Any) -> bool:
    """Whether a decode head is a K-Net, mmseg's or ours."""
    return bare_type(kind) == 'IterativeDecodeHead'


def _attached_head(head: Mapping[str, Any], num_stages: int,
                   kernel_update_head: Mapping[str, Any] | None) -> dict[str, Any]:
    """The decode head's config with K-Net on it; on a K-Net, with further stages."""
    if not isinstance(num_stages, int) or isinstance(num_stages, bool) or num_stages < 0:
        raise ValueError(f'num_stages must be a number from 0, got num_stages={num_stages!r}')
    if kernel_update_head is not None and not isinstance(kernel_update_head, Mapping):
        raise TypeError('kernel_update_head must be one dict for all stages, got '
                        f'kernel_update_head={kernel_update_head!r}')
    update = copy.deepcopy(dict(kernel_update_head)) if kernel_update_head else None
    if not _is_knet(head['type']):
        new: dict[str, Any] = dict(type=OURS, num_stages=num_stages, kernel_generate_head=copy.deepcopy(head))
        return new if update is None else dict(new, kernel_update_head=update)
    if head['type'] in (OURS, IterativeDecodeHead):
        new = copy.deepcopy(dict(head))
    else:
        report = Report()
        new = decode_head_config(head, report)
        report.check()
        _shorten(new)
    before = new.get('num_stages', 3)
    given = new.get('kernel_update_head')
    if update is not None or isinstance(given, list | tuple):
        old = list(given) if isinstance(given, list | tuple) else [given or {}] * before
        new['kernel_update_head'] = [*old, *[update or (old[-1] if old else {})] * num_stages]
    return dict(new, num_stages=before + num_stages)


def _shorten(head: dict[str, Any]) -> None:
    """Leave out of a migrated K-Net, in place, what its stages would be anyway."""
    generator, stages = head['kernel_generate_head'], head['kernel_update_head']
    kernels = generator.get('out_channels') or generator.get('num_classes')
    if not (isinstance(generator.get('channels'), int) and isinstance(kernels, int)):
        return  # these are its class's, and known when it is built
    default = default_stage_config(generator['channels'], kernels)
    if isinstance(stages, Mapping):
        head['kernel_update_head'] = without_defaults(stages, default)
    else:
        head['kernel_update_head'] = [without_defaults(stage, default) for stage in stages]
    if not head['kernel_update_head']:
        del head['kernel_update_head']


def _literal(value: Any) -> str:
    """A value as source, indented to stand in a config."""
    plain = Config(dict(value=value)).to_dict()['value']
    return pformat(plain, width=100, sort_dicts=False).replace('\n', '\n        ')
