"""Refuses options that override nothing, because their key is misspelt."""

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine import registry
from mmengine.config import Config
from mmengine.registry import DefaultScope, Registry
from mmengine.runner import FlexibleRunner, Runner

__all__ = ['check_options', 'unread_options']

# Top-level keys that mmengine, our tools or the hosts' tools read, beside the arguments of the runners.
_KNOWN = {'custom_imports', 'find_unused_parameters', 'model_wrapper_cfg', 'runner_type', 'sync_bn', 'tta_model',
          'tta_pipeline', 'max_iters', 'num_gpus'}
_CLOSE = 0.8  # similarity above which a new key passes for a misspelt one
_FREE = ('custom_keys',)  # dicts whose keys are names of the user


def check_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Refuse ``--cfg-options`` whose key is misspelt. Call it before they are merged into ``cfg``.

    A key at the top must be in the config, or be read by a runner. Below, a new key is fine unless it resembles one
    that is there, or an argument of the class that ``type`` names, and is no such argument itself. ``options`` are
    those of mmengine's ``DictAction``: values by dotted key.

    Raises:
        ValueError: A key is misspelt; the message names the nearest one.
    """
    known = {*cfg.keys(), *_runner_arguments()}
    for option in options:
        names = option.split('.')
        if names[0] not in known:
            raise ValueError(_message(option, names[0], known, 0.5))
        part = cfg.get(names[0])
        for parent, name in zip(names, names[1:], strict=False):
            if isinstance(part, list | tuple):
                if not name.isdigit() or int(name) >= len(part):
                    raise ValueError(f'--cfg-options {option}: {name!r} must be a number below {len(part)}, the length '
                                     'of the list')
                part = part[int(name)]
            elif not isinstance(part, Mapping) or parent in _FREE:
                break
            elif name in part:
                part = part[name]
            else:
                _check_new(option, name, part, cfg)
                break


def unread_options(cfg: Config, options: Mapping[str, Any]) -> list[str]:
    """Those options that change only a variable of the config, such as ``data_root``, after it has been used."""
    return [option for option in options if option.split('.')[0] in cfg.keys() - _runner_arguments()]


def _check_new(option: str, name: str, part: Mapping, cfg: Config) -> None:
    arguments = _arguments(part.get('type'), cfg)
    if name in arguments or name.startswith('_'):
        return
    known = {*map(str, part), *arguments}
    if difflib.get_close_matches(name, known, n=1, cutoff=_CLOSE):
        raise ValueError(_message(option, name, known, _CLOSE))


def _message(option: str, name: str, known: Iterable[str], cutoff: float) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return (f'--cfg-options {option}: the config has no {name!r}'
            + (f'; did you mean {close[0]!r}?' if close else '; nothing would read it'))


def _runner_arguments() -> set[str]:
    return {*_KNOWN, *inspect.signature(Runner.__init__).parameters,
            *inspect.signature(FlexibleRunner.__init__).parameters} - {'self', 'cfg'}


def _arguments(kind: Any, cfg: Config) -> set[str]:
    """Arguments of the classes that are registered as ``kind``, and of their bases."""
    kinds = [kind]
    if isinstance(kind, str):
        scope = cfg.get('default_scope')
        with DefaultScope.overwrite_default_scope(scope), registry.MODELS.switch_scope_and_registry(None):
            kinds = [_registered(each.children.get(scope, each), kind) for each in vars(registry).values()
                     if isinstance(each, Registry)]  # a host lacks some of mmengine's registries
    bases = [base for each in kinds if inspect.isclass(each) for base in each.__mro__ if '__init__' in vars(base)]
    return {name for base in bases for name in inspect.signature(vars(base)['__init__']).parameters}


def _registered(root: Registry, kind: str) -> Any:
    try:
        return root.get(kind)
    except Exception:  # a part whose host is missing cannot be asked for its arguments
        return None
