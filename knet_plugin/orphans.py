"""Ending the processes that a killed one has started: they would go on, or wait for it for ever."""

import ctypes
import os
import signal
import sys

from torch.distributed import is_torchelastic_launched

__all__ = ['end_forks_with_this', 'end_together', 'end_with_parent']

_PR_SET_PDEATHSIG = 1
# Loaded here, as a fork of a process with threads may find the loader's lock taken.
_LIBC = ctypes.CDLL(None) if sys.platform == 'linux' else None
_forking = 0
"""The process that forks, for its child."""


def end_together() -> None:
    """Let this process end with ``torchrun``, where it has started it, and those that it forks from now on with it."""
    if is_torchelastic_launched():
        end_with_parent()  # torchrun ends its processes itself, unless it is killed
    end_forks_with_this()


def end_with_parent(parent: int | None = None) -> None:
    """Have the system end this process with SIGTERM when its parent ends, even if by ``kill -9``; on Linux only.

    Args:
        parent: Its number; if it has ended already, so does this process. By default, whoever is the parent now.
    """
    if _LIBC is not None:
        parent = parent or os.getppid()
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before the system was told
            os.kill(os.getpid(), signal.SIGTERM)


def end_forks_with_this() -> None:
    """Let the processes that this one forks from now on end with it, such as the workers that load data.

    torch lets them look for their parent, too, but one that has more to hand over than a pipe holds never ends.
    """
    os.register_at_fork(before=_remember, after_in_child=lambda: end_with_parent(_forking))


def _remember() -> None:
    global _forking
    _forking = os.getpid()
