"""Reading checkpoint files that come from elsewhere: safely, and with errors that say what the file is instead."""

import os
import pickle  # nosec B403
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ['CheckpointError', 'check_header', 'load_file', 'read_checkpoint', 'weights_of']

TRUST = 'KNET_TRUST_CHECKPOINTS'
"""Environment variable that allows files to execute code while they are read."""

# Names under which training scripts keep the weights, the first that is there counts. Averaged weights come last: who
# wants those asks for them.
_WEIGHTS = ('state_dict', 'model_state', 'model', 'module', 'net')
_AVERAGED = ('ema_state_dict', 'state_dict_ema', 'model_ema', 'ema')


class CheckpointError(ValueError):
    """A file cannot be used as a checkpoint; the message names the file and says why."""


def check_header(path: str | Path) -> bool:
    """Look at the beginning and the end of a file, without reading it.

    Args:
        path: A file that should be one of ``torch.save``.

    Returns:
        Whether it is an archive, torch's format since version 1.6.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is empty, a web page, or an archive without its end.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'there is no checkpoint {path}' if not path.exists() else f'{path} is a folder, not a '
                                'checkpoint')
    with path.open('rb') as file:
        head = file.read(4096).removeprefix(b'\xef\xbb\xbf').lstrip()
    if not head:
        raise CheckpointError(f'{path} is empty')
    if head[:1] == b'<':
        raise CheckpointError(f'{path} is a web page, not a checkpoint: the download brought an error page instead')
    archive = zipfile.is_zipfile(path)
    if head[:2] == b'PK' and not archive:
        raise CheckpointError(f'{path} is truncated: it ends after {path.stat().st_size} bytes, without the end of the '
                              'archive')
    return archive


def load_file(path: str | Path, *, trust: bool | None = None, map_location: Any = 'cpu', mmap: bool = False) -> Any:
    """Do what ``torch.load`` does, without executing code from the file, and say what is wrong with the file.

    Args:
        path: A file that ``torch.save`` wrote.
        trust: Whether the file may execute whatever it holds. Only for files that you made yourself. Unless said, the
            environment variable ``KNET_TRUST_CHECKPOINTS=1`` says it.
        map_location: As in ``torch.load``.
        mmap: Whether tensors are mapped from the file where its format allows, so that a large file is not copied into
            memory. Such a file must not be overwritten while its tensors are in use.

    Returns:
        What the file holds.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is empty, a web page, damaged, or needs code to be executed.
    """
    path = Path(path)
    if trust is None:
        trust = os.environ.get(TRUST) == '1'
    archive = check_header(path)
    try:
        # Code is executed only where the user has said so.
        return torch.load(path, map_location=map_location, weights_only=not trust,  # nosec B614
                          mmap=mmap and archive)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can fail anywhere in the reader
        text = str(error)
        if trust and isinstance(error, ImportError | AttributeError):
            raise CheckpointError(f'{path} needs classes that are not installed: {error}') from error
        if not trust and isinstance(error, pickle.UnpicklingError) and (archive or _is_pickle(path)):
            if asked := re.search(r'(?i)unsupported (?:global: )?GLOBAL (\S+)', text):
                reason = asked[1]
            else:
                found = re.search(r'WeightsUnpickler error:\s*(.+)', text)
                reason = (found[1] if found else text).strip().splitlines()[0]
            raise CheckpointError(f'{path} asks for code to be executed while it is read ({reason}), which any file '
                                  f'could abuse. If you know who made it, allow it with {TRUST}=1 in the environment, '
                                  'or --trust of tools/convert_checkpoint.py') from error
        reason = text.split('Weights only load failed')[0].strip() or type(error).__name__
        raise CheckpointError(f'{path} is no checkpoint, or damaged: {reason}') from error


def _is_pickle(path: Path) -> bool:
    with path.open('rb') as file:
        return file.read(1) == b'\x80'


def read_checkpoint(path: str | Path, trust: bool | None = None) -> dict[str, Any]:
    """Read a checkpoint for a while: its tensors may stay in the file, see ``mmap`` of ``load_file``.

    Args:
        path: See ``load_file``.
        trust: See ``load_file``.

    Returns:
        What the file holds.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: As ``load_file``; or the file holds no dict.
    """
    content = load_file(path, trust=trust, mmap=True)
    if not isinstance(content, dict):
        raise CheckpointError(f'{path} holds a {type(content).__name__}, not a dict of weights')
    return content


def weights_of(checkpoint: dict[str, Any], averaged: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Take the weights out of what training scripts wrap around them.

    Args:
        checkpoint: What the file holds: the weights themselves, or a dict that has them under one of the usual names.
        averaged: Whether to take the running average (EMA) of the weights where it lies beside them. (mmengine keeps
            the average where the weights are otherwise, so there it is taken in any case, as mmengine itself does.)

    Returns:
        Weights by name, without ``module.`` (of data parallel models) in front; and what else the file has, by name,
        with the reason why it is left out.

    Raises:
        CheckpointError: There are no weights, or no averaged ones, or it cannot be told which these are.
    """
    # mmengine's EMA hook swaps the two when it saves: the average is where the weights are otherwise.
    swapped = isinstance(checkpoint.get('ema_state_dict'), dict) and 'steps' in checkpoint['ema_state_dict']
    names = (_AVERAGED if averaged and not swapped else ()) + _WEIGHTS
    found = next((name for name in names if isinstance(checkpoint.get(name), dict)), None)
    content = checkpoint if found is None else checkpoint[found]
    weights = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    dropped = {str(key): 'no weight' for key in content if str(key) not in weights}
    if found is not None:
        dropped |= {str(key): 'another copy of the weights' if key in _WEIGHTS + _AVERAGED else 'no weight'
                    for key in checkpoint if key not in (found, 'meta')}
    # mmcv's EMA hook keeps a second copy as buffers of the model, with the dots of the names replaced. Which of the two
    # is the average depends on when the file was saved.
    copies = {'ema_' + key.replace('.', '_') for key in weights} & weights.keys()
    if averaged and not (swapped or found in _AVERAGED):
        raise CheckpointError('the checkpoint has no averaged weights' if not copies else
                              'which of the two copies of the weights (NAME and ema_NAME) is the average cannot be '
                              'told: after an epoch, mmcv\'s EMA hook has the average under the plain names; take it '
                              'without asking for averages')
    dropped |= dict.fromkeys(sorted(copies), 'another copy of the weights')
    weights = {key: value for key, value in weights.items() if key not in copies}
    if averaged:
        weights.pop('steps', None)
    if not weights:
        raise CheckpointError(f'the checkpoint holds no weights, only {sorted(map(str, content))[:10]}')
    while all(key.startswith('module.') for key in weights):
        weights = {key.removeprefix('module.'): value for key, value in weights.items()}
    return weights, dropped
