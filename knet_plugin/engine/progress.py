"""The progress line: where the run is, how long it takes, losses, learning rate and memory."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import Runner

from knet_plugin.engine.console import Screen, current_screen
from knet_plugin.registry import HOOKS

__all__ = ['ProgressHook', 'kind_of_loss', 'losses_by_kind']

_KINDS = {'cls': 'class'}  # names that are no words


@HOOKS.register_module()
class ProgressHook(Hook):
    """Shows one progress line inside ``quiet_console``; elsewhere, the hosts do.

    In a terminal the line is replaced in place. Otherwise there is a line for the first iteration, for each interval of
    mmengine's ``LoggerHook``, and for the last iteration.

    Args:
        window: Losses are means over this number of iterations.
    """

    priority = 'LOW'  # after the timer and the learning rate

    def __init__(self, window: int = 20) -> None:
        self.window = window
        self._interval = 50
        self._first = 0

    def before_run(self, runner: Runner) -> None:
        """Show where the details are."""
        loggers = (hook for hook in runner.hooks if isinstance(hook, LoggerHook))
        self._interval = next((hook.interval for hook in loggers), self._interval)
        if screen := self._screen(runner):
            screen.line(f'work folder {runner.work_dir}, log {runner.logger.log_file}')

    def before_train(self, runner: Runner) -> None:
        """Remember where this run begins."""
        self._first = runner.iter + 1

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Show the progress of the training."""
        if screen := self._screen(runner):
            done, total = runner.iter + 1, runner.max_iters
            text = '  '.join((f'iter {done:{len(str(total))}}/{total}', self._eta(runner), *self._figures(runner)))
            if not screen.live and (done in (self._first, total) or done % self._interval == 0):
                screen.line(text)
            screen.status(text)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Show the progress of the validation."""
        self._show_evaluation(runner, batch_idx + 1, len(runner.val_dataloader), 'validation')

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Show the progress of the test."""
        self._show_evaluation(runner, batch_idx + 1, len(runner.test_dataloader), 'test')

    def _show_evaluation(self, runner: Runner, done: int, total: int, name: str) -> None:
        if screen := self._screen(runner):
            text = f'{name} {done:{len(str(total))}}/{total}  {self._eta(runner)}'
            if not screen.live and done % self._interval == 0:
                screen.line(text)
            screen.status(text)

    def _screen(self, runner: Runner) -> Screen | None:
        return current_screen() if runner.rank == 0 else None

    def _eta(self, runner: Runner) -> str:
        seconds = runner.message_hub.runtime_info.get('eta')  # of mmengine's IterTimerHook
        return f'eta {"?" if seconds is None else datetime.timedelta(seconds=round(seconds))}'

    def _figures(self, runner: Runner) -> Iterable[str]:
        scalars = runner.message_hub.log_scalars
        losses = {name.removeprefix('train/'): scalars[name].mean(self.window) for name in scalars
                  if name.startswith('train/') and 'loss' in name}
        if 'loss' in losses:
            yield f'loss {losses.pop("loss"):.3g}'
        rates = [rate for group in runner.optim_wrapper.get_lr().values() for rate in group]
        if rates:
            yield f'lr {max(rates):.1e}'  # the first group, which mmengine logs, is often a slow backbone
        if memory := _memory():
            yield f'{memory / 2**30:.1f} GiB'
        for kind, value in losses_by_kind(losses).items():  # last: a narrow terminal cuts them off
            yield f'{kind} {value:.3g}'


def kind_of_loss(name: str) -> str:
    """Name a loss without its stage or head: 'mask' for 's0.loss_mask', 'ce' for 'decode.loss_ce.s0'."""
    part = next(part for part in reversed(name.split('.')) if 'loss' in part)
    kind = part.removeprefix('loss_').removesuffix('_loss')
    return _KINDS.get(kind, kind)


def losses_by_kind(losses: Mapping[str, Any]) -> dict[str, Any]:
    """Sum the losses of all stages and heads by their kind; values are numbers or arrays of one length."""
    sums: dict[str, Any] = {}
    for name, value in losses.items():
        kind = kind_of_loss(name)
        sums[kind] = sums[kind] + value if kind in sums else value
    return sums


def _memory() -> int:
    """Return the largest number of bytes in use so far: of the GPU, or of this process; 0 if unknown."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if sys.platform == 'win32':
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)
