"""Lets the hosts read checkpoints without executing code from the file, and still resume their trainings.

Since torch 2.6 ``torch.load`` refuses every class that is not known to be harmless. A training checkpoint of mmengine
holds a few such: the history of the logged values, and numpy arrays and scalars. The original mmengine knows nothing
of this and cannot resume; its fork, when refused, reads the file again without protection. Here exactly these classes
are allowed, and files that need more are refused.
"""

from __future__ import annotations

import pickle  # nosec B403
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.dist import barrier, get_rank
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader

from knet_plugin.checkpoint.reading import CheckpointError, check_header, load_file
from knet_plugin.compat import release

__all__ = ['allow_host_checkpoints', 'check_files_of_hosts', 'load_from_http', 'load_from_local']

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


def check_files_of_hosts() -> None:
    """Make mmengine read local files and downloads through ``load_file``; calling it again changes nothing.

    Everything of the hosts that loads or resumes goes that way: ``load_from``, ``init_detector``, the inferencers. With
    torch below 2.6, which could not read training checkpoints safely, nothing is done.
    """
    if release(torch.__version__) < (2, 6):
        return
    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), loader=load_from_http, force=True)


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Read a local file for mmengine; see ``load_file``."""
    return load_file(Path(filename).expanduser(), map_location=map_location)


def load_from_http(filename: str, map_location: Any = None) -> Any:
    """Download a file to where torch keeps such, unless it is there, and read it; see ``load_file``.

    In a distributed run the first process downloads, and the others wait.
    """
    path = Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(filename).path).name)
    try:
        if get_rank() == 0:
            _download(filename, path)
    finally:
        barrier()
    _download(filename, path)  # on other machines
    return load_file(path, map_location=map_location)


def _download(url: str, path: Path) -> None:
    """Fetch a file; what is no checkpoint, or not the one that the hash in its name promises, is not kept.

    Raises:
        CheckpointError: It cannot be fetched, or is no checkpoint.
    """
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f'{path.name}.{uuid.uuid4().hex}')
    promised = torch.hub.HASH_REGEX.search(path.name)
    try:
        torch.hub.download_url_to_file(url, str(draft), promised[1] if promised else None)
        check_header(draft)
        draft.replace(path)
    except (OSError, RuntimeError, CheckpointError) as error:
        raise CheckpointError(f'{url}: {str(error).replace(str(draft), path.name)}') from error
    finally:
        draft.unlink(missing_ok=True)


def _safe_globals() -> list[Callable | tuple[Callable, str]]:
    reconstruct: Any = np.empty(0).__reduce__()[0]
    scalar: Any = np.float64(0).__reduce__()[0]
    allowed: list[Callable | tuple[Callable, str]] = [HistoryBuffer, np.ndarray, np.dtype, slice]
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
