"""How the tools run: with a quiet console, and with an end that a user understands."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence

from knet_plugin.engine.console import quiet_console
from knet_plugin.engine.runner import leave_group
from knet_plugin.engine.stopping import RunStopped

__all__ = ['make_work_folder', 'resume_command', 'run_console']


@contextlib.contextmanager
def run_console(bare: bool = False) -> Iterator[None]:
    """Run a tool's work inside the block, with the hosts' own console if ``bare``.

    Ctrl-C and ``StopHook`` end the process with status 130, SIGTERM with 143, without a traceback.
    """
    try:
        with contextlib.nullcontext() if bare else quiet_console():
            yield
    except RunStopped as stop:
        if os.environ.get('RANK', '0') == '0':
            print(f'{stop}\ncontinue with:\n  {resume_command(sys.argv)}', file=sys.stderr)
        leave_group()
        raise SystemExit(128 + stop.signum) from None
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None


def make_work_folder(folder: str) -> None:
    """Make the folder of a run, or end the process with a line that says why that is impossible."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise SystemExit(f'error: the work folder {folder} cannot be written: {error.strerror}') from None
    if not os.access(folder, os.W_OK):
        raise SystemExit(f'error: the work folder {folder} cannot be written')


def resume_command(argv: Sequence[str]) -> str:
    """Return the command that continues the training with these arguments of ``tools/train.py``."""
    words, skip = [], False
    for word in argv[1:]:
        if skip and not word.startswith('-'):
            skip = False
            continue
        skip = word == '--resume'
        if not skip and not word.startswith('--resume='):
            words.append(word)
    command = f'knet train {shlex.join(words)} --resume'.replace(' --launcher none', '')
    processes = os.environ.get('LOCAL_WORLD_SIZE')  # of torchrun
    return command.replace(' --launcher pytorch', f' --launcher pytorch --gpus {processes}') if processes else command
