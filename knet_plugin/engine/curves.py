"""Learning curves as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from knet_plugin.checkpoint.whole_file import whole_file

__all__ = ['draw_curves']

_POINTS = 200  # of a curve


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
