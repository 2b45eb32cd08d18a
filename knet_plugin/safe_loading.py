"""Lets ``torch.load`` read training checkpoints of the host packages without executing code from the file.

Since torch 2.6 ``torch.load`` refuses every class that is not known to be harmless. A training checkpoint of mmengine
holds a few such: the history of the logged values, and numpy arrays and scalars. The original mmengine knows nothing
of this and cannot resume; instead of switching the protection off, exactly these are allowed.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from knet_plugin.hosts import release

__all__ = ['allow_host_checkpoints']

# The numbers that training scripts log and keep: their dtype objects are restored through these classes.
_DTYPES = ('bool', 'int8', 'int16', 'int32', 'int64', 'uint8', 'uint16', 'uint32', 'uint64', 'float16', 'float32',
           'float64')


def allow_host_checkpoints() -> None:
    """Register what a training checkpoint of mmengine holds as safe to load; calling it again changes nothing.

    With torch below 2.6, which does not check by default, nothing is done.
    """
    if release(torch.__version__) < (2, 6):
        return
    torch.serialization.add_safe_globals(_safe_globals())


def _safe_globals() -> list[Callable | tuple[Callable, str]]:
    reconstruct: Any = np.empty(0).__reduce__()[0]
    scalar: Any = np.float64(0).__reduce__()[0]
    allowed: list[Callable | tuple[Callable, str]] = [HistoryBuffer, np.ndarray, np.dtype]
    allowed += list(dict.fromkeys(type(np.dtype(name)) for name in _DTYPES))
    # numpy 2 moved this module; a file written under either name must load under either version.
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        allowed += [(reconstruct, f'{module}._reconstruct'), (scalar, f'{module}.scalar')]
    # A HistoryBuffer refers to its own methods as getattr(HistoryBuffer, name).
    allowed.append((_statistics_method, 'builtins.getattr'))
    return allowed


def _statistics_method(owner: Any, name: str) -> Callable:
    """Stands in for ``getattr`` while a checkpoint is read: gives out a history's statistics methods, nothing else.

    Raises:
        pickle.UnpicklingError: Anything else is asked for.
    """
    if owner is not HistoryBuffer or name not in HistoryBuffer()._statistics_methods:
        raise pickle.UnpicklingError(f'the checkpoint asks for the attribute {name!r} of {owner!r}; '
                                     'only the statistics of a HistoryBuffer are allowed')
    return getattr(HistoryBuffer, name)
