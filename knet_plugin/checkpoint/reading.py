"""Reads checkpoint files without running code from them, and says what is wrong with a file."""

import os
import pickle  # nosec B403
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from knet_plugin.compat import allow_host_checkpoints

__all__ = ['CheckpointError', 'check_header', 'load_file', 'read_checkpoint', 'weights_of']

TRUST = 'KNET_TRUST_CHECKPOINTS'
"""Environment variable that allows files to run code while they are read."""

# Keys under which training scripts save weights, and running averages of them; the first that exists counts.
_WEIGHTS = ('state_dict', 'model_state', 'model', 'module', 'net')
_AVERAGED = ('ema_state_dict', 'state_dict_ema', 'model_ema', 'ema')


class CheckpointError(ValueError):
    """A file cannot be used as a checkpoint; the message names the file and the reason."""


def check_header(path: str | Path) -> bool:
    """Check the first and last bytes of a file, and return whether it is a zip archive (torch 1.6 and newer).

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is empty, a web page or a truncated archive.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path} is a folder, not a checkpoint' if path.exists() else
                                f'there is no checkpoint {path}')
    with path.open('rb') as file:
        head = file.read(4096).removeprefix(b'\xef\xbb\xbf').lstrip()
    if not head:
        raise CheckpointError(f'{path} is empty')
    if head.startswith(b'<'):
        raise CheckpointError(f'{path} is a web page, not a checkpoint: the download returned an error page')
    archive = zipfile.is_zipfile(path)
    if head.startswith(b'PK') and not archive:
        raise CheckpointError(f'{path} is truncated: it ends after {path.stat().st_size} bytes')
    return archive


def load_file(path: str | Path, *, trust: bool | None = None, map_location: Any = 'cpu', mmap: bool = False) -> Any:
    """Load a file like ``torch.load``, without running code from it.

    Args:
        path: A file written by ``torch.save``.
        trust: Whether the file may run code: only for files that you made yourself. The default is the environment
            variable ``KNET_TRUST_CHECKPOINTS=1``.
        map_location: See ``torch.load``.
        mmap: Map tensors from the file instead of copying them, if the format allows it. Do not overwrite the file
            while its tensors are in use.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is empty, a web page, damaged, or needs to run code.
    """
    path = Path(path)
    if trust is None:
        trust = os.environ.get(TRUST) == '1'
    archive = check_header(path)
    allow_host_checkpoints()  # again: after each file, the forks' own reader forbids what it had allowed
    try:
        return torch.load(path, map_location=map_location, weights_only=not trust,  # nosec B614
                          mmap=mmap and archive)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise CheckpointError(f'{path} {_reason(error, trust, archive or _is_pickle(path))}') from error


def _reason(error: Exception, trust: bool, readable: bool) -> str:
    """Say why ``torch.load`` failed."""
    text = str(error)
    if trust and isinstance(error, ImportError | AttributeError):
        return f'needs classes that are not installed: {text}'
    if not trust and readable and isinstance(error, pickle.UnpicklingError):
        found = (re.search(r'(?i)unsupported (?:global: )?GLOBAL (\S+)', text)
                 or re.search(r'WeightsUnpickler error:\s*(.+)', text))
        return (f'asks for code to be executed while it is read ({found[1] if found else text}). If you trust its '
                f'author, set {TRUST}=1 in the environment or use --trust of tools/convert_checkpoint.py')
    return f'is no checkpoint, or damaged: {text.split("Weights only load failed")[0].strip() or type(error).__name__}'


def _is_pickle(path: Path) -> bool:
    with path.open('rb') as file:
        return file.read(1) == b'\x80'


def read_checkpoint(path: str | Path, trust: bool | None = None) -> dict[str, Any]:
    """Read a checkpoint that is a dict. Its tensors stay in the file; see ``load_file`` for arguments and errors."""
    content = load_file(path, trust=trust, mmap=True)
    if not isinstance(content, dict):
        raise CheckpointError(f'{path} holds a {type(content).__name__}, not a dict of weights')
    return content


def weights_of(checkpoint: dict[str, Any], averaged: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Find the weights in a checkpoint.

    Args:
        checkpoint: The weights themselves, or a dict that has them under a usual key such as ``state_dict``.
        averaged: Take the running average (EMA) beside the weights. (mmengine saves the average as ``state_dict``, so
            it is taken in any case, as by mmengine itself.)

    Returns:
        Weights by name, without ``module.`` of data parallel models; and why other items are left out, by name.

    Raises:
        CheckpointError: There are no weights, no averaged ones, or it is unclear which of two copies is the average.
    """
    swapped = 'steps' in (checkpoint.get('ema_state_dict') or ())  # by mmengine's EMA hook
    keys = (_AVERAGED if averaged and not swapped else ()) + _WEIGHTS
    found = next((key for key in keys if isinstance(checkpoint.get(key), dict)), None)
    content = checkpoint if found is None else checkpoint[found]
    weights = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    dropped = {str(key): 'no weight' for key in content if str(key) not in weights}
    if found is not None:
        dropped |= {str(key): 'another copy of the weights' if key in _WEIGHTS + _AVERAGED else 'no weight'
                    for key in checkpoint if key not in (found, 'meta')}
    # mmcv's EMA hook keeps the second copy as buffers of the model.
    copies = {'ema_' + key.replace('.', '_') for key in weights} & weights.keys()
    if averaged and not (swapped or found in _AVERAGED):
        raise CheckpointError('NAME or ema_NAME may be the average, depending on when mmcv saved the checkpoint; '
                              'convert without averaged' if copies else 'the checkpoint has no averaged weights')
    dropped |= dict.fromkeys(sorted(copies), 'another copy of the weights')
    weights = {key: value for key, value in weights.items() if key not in copies}
    if not weights:
        raise CheckpointError(f'the checkpoint holds no weights, only {sorted(map(str, content))[:10]}')
    while all(key.startswith('module.') for key in weights):
        weights = {key.removeprefix('module.'): value for key, value in weights.items()}
    return weights, dropped
