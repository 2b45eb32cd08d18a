"""Makes mmengine load checkpoints without running code from them.

Since torch 2.6, ``torch.load`` refuses files that would run code, but the maintained fork of mmengine then reads them
again, unprotected. Inside ``safe_loading``, mmengine refuses such files and reports what is wrong with them.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import barrier, get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader

from knet_plugin.checkpoint.pretrained import download
from knet_plugin.checkpoint.reading import load_file
from knet_plugin.compat import release
from knet_plugin.registry import HOOKS

__all__ = ['SafeLoadingHook', 'load_from_http', 'load_from_local', 'safe_loading']


@contextlib.contextmanager
def safe_loading() -> Iterator[None]:
    """Make mmengine load local files and downloads safely inside the block: ``load_from``, ``init_detector``, ...

    Does nothing with torch below 2.6, which cannot load mmengine's training checkpoints safely.
    """
    before = CheckpointLoader._schemes
    if release(torch.__version__) >= (2, 6):
        CheckpointLoader._schemes = OrderedDict(before)
        CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
        CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), loader=load_from_http, force=True)
    ours = CheckpointLoader._schemes
    try:
        yield
    finally:
        # An aborted run leaves its block open until Python collects its hook: perhaps in the block of a later run.
        if CheckpointLoader._schemes is ours:
            CheckpointLoader._schemes = before


@HOOKS.register_module()
class SafeLoadingHook(Hook):
    """Applies ``safe_loading`` to a run of mmengine's ``Runner``, from ``before_run`` to ``after_run``.

    ``FlexibleRunner`` loads checkpoints before it calls any hook: call its methods inside ``safe_loading()``.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def before_run(self, runner: Runner) -> None:
        """Replace mmengine's readers; ``Runner`` initialises weights, loads and resumes after this."""
        self._stack.enter_context(safe_loading())

    def after_run(self, runner: Runner) -> None:
        """Restore mmengine's readers."""
        self._stack.close()


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Load a local file with ``load_file``."""
    return load_file(Path(filename).expanduser(), map_location=map_location)


def load_from_http(filename: str, map_location: Any = None) -> Any:
    """Load a file that the first process downloads into torch's cache, unless it is there."""
    try:
        if get_rank() == 0:
            download(filename)
    finally:
        barrier()
    # The other processes may not share the first one's disk.
    return load_file(download(filename), map_location=map_location)
