"""Reports the validations: a table on the screen, scores in a file, and learning curves."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import master_only
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from knet_plugin.checkpoint.whole_file import whole_file
from knet_plugin.engine.console import current_screen
from knet_plugin.engine.progress import losses_by_kind
from knet_plugin.engine.scores import best_score_key, percent_scores, score_table
from knet_plugin.registry import HOOKS

__all__ = ['ValidationReportHook', 'draw_curves', 'read_validations']

_FILE = 'validations.jsonl'
_SHOWN = 5  # validations in a table
_POINTS = 200  # of a curve


@HOOKS.register_module()
class ValidationReportHook(Hook):
    """After each validation, shows a table and draws ``curves.png``; after a test, shows its scores.

    ``validations.jsonl`` in the work folder keeps a line for each validation: ``iter`` and the numbers that the metrics
    report. A resumed training drops the lines after its checkpoint, and mmengine keeps the losses in the checkpoint. So
    the curves of a resumed training are complete.
    """

    priority = 'LOWEST'  # after the best checkpoint is saved

    def __init__(self) -> None:
        self._validations: list[dict] = []
        self._best_key: str | None = None

    def before_train(self, runner: Runner) -> None:
        """Read the validations before the checkpoint."""
        path = Path(runner.work_dir, _FILE)
        earlier = read_validations(path) if runner.iter else []
        self._validations = [each for each in earlier if each['iter'] <= runner.iter]
        hooks = (hook for hook in runner.hooks if isinstance(hook, CheckpointHook) and hook.save_best)
        keys = next((hook.key_indicators for hook in hooks), [best_score_key(runner.cfg.get('val_evaluator'))])
        self._best_key = keys[0]
        self._write(path)

    @master_only
    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Report a validation."""
        numbers = {key: float(value) for key, value in (metrics or {}).items() if isinstance(value, Real)}
        self._validations.append(dict(iter=runner.iter, **numbers))
        self._write(Path(runner.work_dir, _FILE))
        if screen := current_screen():
            screen.line(self._table())
        self._draw(runner)

    @master_only
    def after_test_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Show the scores of a test."""
        if (screen := current_screen()) and (scores := percent_scores(metrics or {})):
            screen.line(score_table({'test': scores}))

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Draw the curves to their end, and say where everything is."""
        self._draw(runner)
        if screen := current_screen():
            best = runner.message_hub.runtime_info.get('best_ckpt')
            screen.line(f'finished; curves in {Path(runner.work_dir, "curves.png")}'
                        + (f', best checkpoint {best}' if best else ''))

    def _best(self) -> dict | None:
        """The validation with the best score; of equal ones the first, whose checkpoint mmengine keeps."""
        scored = [each for each in self._validations if self._best_key in each]
        return max(scored, key=lambda each: each[self._best_key], default=None)

    def _table(self) -> str:
        best = self._best()
        last = self._validations[-_SHOWN:]
        shown = [best, *last] if best and best not in last else last
        rows = {f'iter {each["iter"]}': _percent(each) for each in shown}
        return score_table(rows, f'iter {best["iter"]}' if best else None)

    def _draw(self, runner: Runner) -> None:
        histories = {name.removeprefix('train/'): history.data[0] for name, history
                     in runner.message_hub.log_scalars.items() if name.startswith('train/') and 'loss' in name}
        length = min((len(values) for values in histories.values()), default=0)
        losses = losses_by_kind({name: values[-length:] for name, values in histories.items()}) if length else {}
        scores: dict[str, list[tuple[int, float]]] = {}
        for each in self._validations:
            for title, value in _percent(each).items():
                scores.setdefault(title, []).append((each['iter'], value))
        mark = None
        if self._best_key and (best := self._best()):
            mark = next(iter(percent_scores({self._best_key: best[self._best_key]})), ''), best['iter']
        try:
            draw_curves(Path(runner.work_dir, 'curves.png'), Path(runner.work_dir).name, losses, runner.iter, scores,
                        mark)
        except Exception as error:  # never end a training for a picture
            print_log(f'cannot draw the learning curves: {error}', 'current', logging.WARNING)

    @master_only
    def _write(self, path: Path) -> None:
        with whole_file(path) as draft:
            draft.write_text(''.join(json.dumps(each) + '\n' for each in self._validations))


def read_validations(path: Path) -> list[dict]:
    """Read ``validations.jsonl``; a missing file has none."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _percent(validation: Mapping[str, float]) -> dict[str, float]:
    return percent_scores({key: value for key, value in validation.items() if key != 'iter'})


def draw_curves(path: Path, title: str, losses: Mapping[str, np.ndarray], last: int,
                scores: Mapping[str, Sequence[tuple[int, float]]], best: tuple[str, int] | None = None) -> None:
    """Draw losses and validation scores over the iterations.

    Args:
        path: PNG file to write.
        title: Name of the run.
        losses: For each name, values (n,) of the last n iterations; long ones are averaged in blocks.
        last: The last iteration.
        scores: For each name, iterations and values in percent.
        best: Name and iteration of the score to mark.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator

    figure = Figure(figsize=(13, 4.8), layout='constrained')
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    for name, values in losses.items():
        left.plot(*_averaged(np.asarray(values, float), last),
                  **dict(color='black', linewidth=2.4, label='total') if name == 'loss' else dict(label=name))
    left.set(title='training losses', yscale='log')
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter('{x:g}')
    left.yaxis.set_minor_formatter('')
    right.set_title('validation, in percent')
    for name, points in scores.items():
        line, = right.plot(*np.array(points, float).T, marker='o', markersize=4, label=name)
        if best and best[0] == name:
            value = dict(points)[best[1]]
            right.plot(best[1], value, '*', color=line.get_color(), markersize=16, markeredgecolor='black')
            right.set_title(f'validation, in percent: best {name} {value:.1f} at iteration {best[1]}')
    for axes in (left, right):
        axes.set(xlabel='iteration', xlim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(loc='upper left', bbox_to_anchor=(1, 1), frameon=False)
    with whole_file(path) as draft:
        FigureCanvasAgg(figure).print_png(str(draft))


def _averaged(values: np.ndarray, last: int) -> tuple[np.ndarray, list[float]]:
    """Return the iterations and means of at most ``_POINTS`` blocks of about equal length."""
    bounds = np.linspace(0, len(values), min(len(values), _POINTS) + 1).astype(int)
    means = [float(values[start:end].mean()) for start, end in zip(bounds, bounds[1:], strict=False)]
    return last - len(values) + (bounds[:-1] + 1 + bounds[1:]) / 2, means
