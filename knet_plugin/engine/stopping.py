"""Ends a training on Ctrl-C with a checkpoint from which it continues."""

from __future__ import annotations

import copy
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from knet_plugin.engine.checkpoint_hook import CheckpointHook
from knet_plugin.registry import HOOKS

__all__ = ['RunStopped', 'StopHook']

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_DONE = 'batches_done_in_epoch'  # in a checkpoint's meta


class RunStopped(KeyboardInterrupt):
    """A signal ended the training, which has a checkpoint."""

    def __init__(self, signum: int, checkpoint: str) -> None:
        super().__init__(f'stopped by {signal.Signals(signum).name}; {checkpoint} is complete')
        self.signum = signum
        self.checkpoint = checkpoint


@HOOKS.register_module()
class StopHook(Hook):
    """On SIGINT (Ctrl-C) or SIGTERM, ends the training after the current iteration with a checkpoint of it.

    The hook raises ``RunStopped``. A second signal acts as it would without this hook. A loop over epochs
    continues from such a checkpoint with the rest of the epoch.

    With several processes, all stop after the same iteration: they ask each other every ``interval`` iterations.
    Further signals change nothing, because launchers repeat the user's Ctrl-C.
    """

    priority = 'LOWEST'  # after CheckpointHook

    def __init__(self, interval: int = 10) -> None:
        self.interval = interval
        self._asked = 0  # the signal
        self._handlers: dict[int, Any] = {}
        self._process = os.getpid()
        self._loop: Any = None
        self._done = 0  # batches of the first epoch to pass over
        self._loader: DataLoader | None = None

    def before_train(self, runner: Runner) -> None:
        """Take over the signals."""
        self._process = os.getpid()
        self._loop = runner.train_loop
        if threading.current_thread() is threading.main_thread():  # Python allows it only there
            self._handlers = {number: signal.signal(number, self._ask) for number in _SIGNALS}

    def after_train(self, runner: Runner) -> None:
        """Give the signals back."""
        self._restore()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Stop after an iteration."""
        if self._agreed(runner, runner.iter + 1):
            self._stop(runner, runner.iter + 1)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Stop during a validation; a single process only, because others may have fewer images."""
        if self._handlers and runner.world_size == 1 and self._asked:
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):
                    hook.after_val_epoch(runner)  # the model gets its own weights back from the average
            self._stop(runner, runner.iter)  # has counted the last iteration already

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Find out whether the training was stopped in an epoch."""
        self._done = checkpoint.get('meta', {}).get(_DONE, 0)

    def before_train_epoch(self, runner: Runner) -> None:
        """Continue a stopped epoch where it ended."""
        if self._done and runner.iter and isinstance(runner.train_loop, EpochBasedTrainLoop):
            self._loader = runner.train_loop.dataloader
            rest: Any = copy.copy(self._loader)
            # The sampler knows the epoch by now. A DataLoader refuses to set its batch_sampler.
            vars(rest)['batch_sampler'] = list(rest.batch_sampler)[self._done:]
            runner.train_loop.dataloader = rest
        self._done = 0

    def after_train_epoch(self, runner: Runner) -> None:
        """Return to whole epochs."""
        if self._loader is not None:
            runner.train_loop.dataloader, self._loader = self._loader, None

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a data loading worker: the main process ends it
            return
        if not self._is_training(frame):  # an error has ended the run
            self._restore()
            signal.raise_signal(signum)
        elif not self._asked:
            self._asked = signum
            if 'RANK' not in os.environ:
                sys.stderr.write('\nstopping after this iteration; Ctrl-C again ends at once\n')
            elif os.environ['RANK'] == '0':
                sys.stderr.write(f'\nstopping after an iteration that is a multiple of {self.interval}\n')
        elif 'RANK' not in os.environ:
            self._restore()
            signal.raise_signal(signum)

    def _is_training(self, frame: FrameType | None) -> bool:
        while frame and frame.f_locals.get('self') is not self._loop:
            frame = frame.f_back
        return frame is not None

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _agreed(self, runner: Runner, iteration: int) -> bool:
        if runner.world_size == 1:
            return bool(self._asked)
        if iteration % self.interval:
            return False
        asked = torch.tensor(self._asked, device=next(runner.model.parameters()).device)
        all_reduce(asked, 'max')
        self._asked = int(asked)
        return bool(self._asked)

    def _stop(self, runner: Runner, iteration: int) -> None:
        loop = runner.train_loop
        meta = dict(epoch=runner.epoch, iter=iteration)
        if isinstance(loop, EpochBasedTrainLoop):
            meta[_DONE] = iteration - runner.epoch * len(self._loader or loop.dataloader)
        hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
        if hook is None:
            hook = CheckpointHook(by_epoch=False)
            hook.before_train(runner)
        path = hook.save_now(runner, meta)
        self._restore()
        raise RunStopped(self._asked, path)
