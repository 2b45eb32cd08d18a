"""Ends a training at a time of the clock, with the whole schedule in that time."""

import time
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from knet_plugin.registry import HOOKS

__all__ = ['TimeLimitHook']

_MEASURED = 10  # iterations before the first estimate; later ones follow at this interval
_VALIDATION_SHARE = 0.25  # of the time, at most; but there is always one validation, at the end
_SKIPPED = 2  # the first iterations are slower
_STORED = 'seconds_before'  # in the message hub, so that a resumed run knows what has passed


@HOOKS.register_module()
class TimeLimitHook(Hook):
    """Chooses ``max_iters`` so that training and validation take ``minutes``.

    It measures iterations and validations all along, because a machine may be shared. The ends of the learning rate
    schedulers move with ``max_iters``; the rate itself does not jump. Validations are spread evenly over the time; if
    they would take more than a quarter of it, there are fewer.

    Args:
        minutes: From the start of the training to the end of the last validation.
        validations: Number of validations, at most.
    """

    priority = 'LOW'
    clock = staticmethod(time.perf_counter)

    def __init__(self, minutes: float, validations: int = 5) -> None:
        if minutes <= 0 or validations < 1:
            raise ValueError(f'minutes and validations must be positive, got minutes={minutes} and '
                             f'validations={validations}')
        self.budget = 60 * minutes
        self.validations = validations
        self._validating = self._longest = 0.0  # seconds in validations, and in the longest
        self._done = 0

    def before_train(self, runner: Runner) -> None:
        """Start the clock."""
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            raise ValueError('TimeLimitHook needs train_cfg.type=\'IterBasedTrainLoop\'')
        self._start = self._clock = self.clock()
        self._start -= runner.message_hub.runtime_info.get(_STORED, 0)
        self._first = runner.iter
        self._done = int((self._clock - self._start) / self.budget * self.validations)
        self._plan(runner, next_val=runner.max_iters)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Measure, and from time to time estimate the last iteration anew."""
        now = self.clock()
        runner.message_hub.update_info(_STORED, now - self._start)
        done = runner.iter + 1
        trained = done - self._first
        if trained == _SKIPPED:
            self._clock, self._validating = now, 0.0
        elif trained > _SKIPPED and (trained % _MEASURED == 0 or now - self._start > self.budget):
            seconds = (now - self._clock - self._validating) / (trained - _SKIPPED)
            self._estimate(runner, done, now - self._start, seconds)

    def before_val(self, runner: Runner) -> None:
        """Start to measure a validation."""
        self._val_start = self.clock()

    def after_val(self, runner: Runner) -> None:
        """Remember how long it took."""
        seconds = self.clock() - self._val_start
        self._validating += seconds
        self._longest = max(self._longest, seconds)
        self._done += 1

    def _estimate(self, runner: Runner, done: int, elapsed: float, seconds: float) -> None:
        """Set the last iteration and the next validation from the seconds of an iteration."""
        validation = self._longest
        if not validation and runner.val_loop is not None:  # a guess: an image takes a third of its time in training
            validation = len(runner.val_dataloader.dataset) * seconds / 3 / (runner.train_dataloader.batch_size or 1)
        affordable = int(_VALIDATION_SHARE * self.budget / validation) if validation else self.validations
        planned = max(self._done + 1, min(self.validations, affordable))
        left = planned - self._done
        last = done + max(0, int((self.budget - elapsed - left * validation) / seconds))
        due = self.budget * (self._done + 1) / planned - validation  # when the next validation should begin
        following = done + max(1, round((due - elapsed) / seconds)) if left > 1 else last
        self._plan(runner, min(following, last), last)

    def _plan(self, runner: Runner, next_val: int, last: int | None = None) -> None:
        loop = runner.train_loop
        # The loop validates after multiples of its interval; the next one is the interval itself.
        loop.dynamic_milestones, loop.dynamic_intervals = [0], [next_val]
        if last is None:
            return
        for scheduler in runner.param_schedulers:
            if scheduler.end == loop._max_iters:
                scheduler.end = last
                scheduler.total_iters = max(last - scheduler.begin - 1, scheduler.last_step + 1)
        loop._max_iters = last
