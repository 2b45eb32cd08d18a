"""Ending the processes that a killed one has started: they would go on, or wait for it for ever."""

import ctypes
import os
import signal
import sys

__all__ = ['end_forks_with_this', 'end_with_parent']

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Have the system end this process with SIGTERM when its parent ends, even if by ``kill -9``; on Linux only."""
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def end_forks_with_this() -> None:
    """Let the processes that this one forks from now on end with it, such as the workers that load data.

    torch lets them look for their parent, too, but one that has more to hand over than a pipe holds never ends.
    """
    os.register_at_fork(after_in_child=end_with_parent)
