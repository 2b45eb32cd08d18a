"""Learning curves as a picture."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from knet_plugin.checkpoint.whole_file import whole_file

__all__ = ['draw_curves']

_POINTS = 200  # of a curve
_KINDS = ('mask', 'dice', 'class', 'rank', 'seg')  # have the same colours in all runs
_COLOURS = ('#1f6fb4', '#e07b20', '#2e9a4e', '#c43c39', '#8459b3', '#7d564b', '#c65ba3', '#6f6f6f')


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
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(13, 4.8), layout='constrained')
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    kinds = list(dict.fromkeys([*_KINDS, *(name for name in losses if name != 'loss')]))
    for name, values in losses.items():
        x, y = _averaged(np.asarray(values, float), last)
        if name == 'loss':
            left.plot(x, y, color='black', linewidth=2.4, label='total')
        else:
            left.plot(x, y, color=_COLOURS[kinds.index(name) % len(_COLOURS)], label=name)
    left.set(title='training losses', yscale='log')
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter(StrMethodFormatter('{x:g}'))
    left.yaxis.set_minor_formatter(NullFormatter())
    right.set_title('validation, in percent')
    for (name, points), colour in zip(scores.items(), itertools.cycle(_COLOURS)):
        x, y = np.array(points, float).T
        right.plot(x, y, color=colour, marker='o', markersize=4, label=name)
        if best and best[0] == name:
            value = float(y[x.tolist().index(best[1])])
            right.plot(best[1], value, '*', color=colour, markersize=16, markeredgecolor='black')
            right.set_title(f'validation, in percent: best {name} {value:.1f} at iteration {best[1]}')
    for axes in (left, right):
        axes.set(xlabel='iteration', xlim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
        _legend(axes)
    with whole_file(path) as draft:
        FigureCanvasAgg(figure).print_png(str(draft))


def _averaged(values: np.ndarray, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Return iterations and means of at most ``_POINTS`` blocks of equal length; the last block may be shorter."""
    first = last - len(values)
    size = -(-len(values) // _POINTS) or 1
    starts = np.arange(0, len(values), size)
    ends = np.minimum(starts + size, len(values))
    with np.errstate(invalid='ignore'):
        means = np.add.reduceat(values, starts) / (ends - starts) if len(values) else values
    return first + (starts + 1 + ends) / 2, means


def _legend(axes: Any) -> None:
    """Write the names beside the curves in the order of their last values."""
    lines = [line for line in axes.lines if not line.get_label().startswith('_')]
    lines.sort(key=lambda line: np.nan_to_num(line.get_ydata()[-1:]).sum(), reverse=True)
    if lines:
        axes.legend(handles=lines, loc='upper left', bbox_to_anchor=(1, 1), frameon=False)
    else:
        axes.text(0.5, 0.5, 'nothing yet', transform=axes.transAxes, ha='center', color='gray')
