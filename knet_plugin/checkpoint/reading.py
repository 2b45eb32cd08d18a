"""Reads checkpoint files without running code from them, and reports what is wrong with a file."""

import os
import pickle  # nosec B403
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from knet_plugin.compat import allow_host_checkpoints

__all__ = ['CheckpointError', 'load_file', 'read_checkpoint', 'weights_of']

_TRUST = 'KNET_TRUST_CHECKPOINTS'  # environment variable that allows files to run code while they are read
_WEIGHTS = ('state_dict', 'model_state', 'model', 'module', 'net')  # keys under which training scripts save weights


class CheckpointError(ValueError):
    """A file cannot be used as a checkpoint; the message names the file and the reason."""


def load_file(path: str | Path, *, trust: bool | None = None, map_location: Any = 'cpu', mmap: bool = False) -> Any:
    """Load a file like ``torch.load``, without running code from it.

    Args:
        path: A file written by ``torch.save``.
        trust: Whether the file may run code. The default is whether ``KNET_TRUST_CHECKPOINTS=1`` is set.
        map_location: See ``torch.load``.
        mmap: Map tensors from the file, if its format allows it; do not overwrite it while they are in use.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is empty, a web page, damaged, or needs to run code.
    """
    path = Path(path)
    if trust is None:
        trust = os.environ.get(_TRUST) == '1'
    start, archive = _checked_start(path), zipfile.is_zipfile(path)
    if start.startswith(b'PK') and not archive:
        raise CheckpointError(f'{path} is truncated: it ends after {path.stat().st_size} bytes')
    allow_host_checkpoints()  # again: after each file, the forks' own reader forbids what it had allowed
    try:
        return torch.load(path, map_location, weights_only=not trust, mmap=mmap and archive)  # nosec B614
    except MemoryError:
        raise
    except Exception as error:  # a damaged file may raise anything
        is_pickle = archive or start.startswith(b'\x80')
        raise CheckpointError(f'{path} {_reason(error, trust, is_pickle)}') from error


def _checked_start(path: Path) -> bytes:
    """Return the first bytes of a file, unless it is missing, empty or a web page."""
    if not path.is_file():
        raise FileNotFoundError(f'{path} is a folder, not a checkpoint' if path.exists() else
                                f'there is no checkpoint {path}')
    with path.open('rb') as file:
        start = file.read(4096)
    text = start.removeprefix(b'\xef\xbb\xbf').lstrip()
    if not text:
        raise CheckpointError(f'{path} is empty')
    if text.startswith(b'<'):
        raise CheckpointError(f'{path} is a web page, not a checkpoint: the download returned an error page')
    return start


def _reason(error: Exception, trust: bool, is_pickle: bool) -> str:
    """Say why ``torch.load`` failed."""
    text = str(error)
    if trust and isinstance(error, ImportError | AttributeError):
        return f'needs classes that are not installed: {text}'
    if not trust and is_pickle and isinstance(error, pickle.UnpicklingError):
        found = (re.search(r'(?i)unsupported (?:global: )?GLOBAL (\S+)', text)
                 or re.search(r'WeightsUnpickler error:\s*(.+)', text))
        return (f'asks for code to be executed while it is read ({found[1] if found else text}). If you trust its '
                f'author, set {_TRUST}=1 in the environment or use --trust of tools/convert_checkpoint.py')
    return f'is no checkpoint, or damaged: {text.split("Weights only load failed")[0].strip() or type(error).__name__}'


def read_checkpoint(path: str | Path, trust: bool | None = None) -> dict[str, Any]:
    """Read a checkpoint that is a dict. Its tensors stay in the file; see ``load_file`` for arguments and errors."""
    content = load_file(path, trust=trust, mmap=True)
    if not isinstance(content, dict):
        raise CheckpointError(f'{path} holds a {type(content).__name__}, not a dict of weights')
    return content


def weights_of(checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Find the weights in a checkpoint: in the dict itself, or under a usual key such as ``state_dict``.

    Returns:
        Weights by name, without ``module.`` of data parallel models; and why other items are left out, by name.

    Raises:
        CheckpointError: There are no weights.
    """
    found = next((key for key in _WEIGHTS if isinstance(checkpoint.get(key), dict)), None)
    content = checkpoint if found is None else checkpoint[found]
    weights = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    dropped = {str(key): 'no weight' for key in content if str(key) not in weights}
    if found is not None:
        dropped |= {str(key): f'beside {found}' for key in checkpoint if key not in (found, 'meta')}
    # mmcv's EMA hook keeps a second copy of the weights as buffers of the model.
    copies = {'ema_' + key.replace('.', '_') for key in weights} & weights.keys()
    dropped |= dict.fromkeys(sorted(copies), 'another copy of the weights')
    weights = {key: value for key, value in weights.items() if key not in copies}
    if not weights:
        raise CheckpointError(f'the checkpoint holds no weights, only {sorted(map(str, content))[:10]}')
    while all(key.startswith('module.') for key in weights):
        weights = {key.removeprefix('module.'): value for key, value in weights.items()}
    return weights, dropped
