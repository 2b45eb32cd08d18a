"""Which classes a model takes for which."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from knet_plugin.visualization import VOID, Instance, Result

__all__ = ['Confusion', 'label_map', 'partners']

NONE = 'none'  # no object, or void


class Confusion:
    """Counts pairs of a true and a predicted class: pixels, or objects where there are no maps.

    An object counts as found if a mask overlaps it with an IoU above 0.5, of whatever class; better scores choose
    first. What has no partner is paired with 'none', as are pixels that the model leaves void. Void pixels of the
    ground truth do not count.

    Args:
        classes: Names.
        score_thr: Objects with a lower score do not count.

    Attributes:
        counts: (classes + 1, classes + 1); row = truth, column = prediction, the last ones are 'none'.
    """

    def __init__(self, classes: Sequence[str], score_thr: float = 0.3) -> None:
        self.names = [*classes, NONE]
        self.counts = np.zeros((len(self.names), len(self.names)), np.int64)
        self.unit = 'pixels'
        self._score_thr = score_thr

    def add(self, result: Result, truth: Result) -> None:
        """Count an image; nothing, if it has no ground truth of the result's kind."""
        predicted, true = label_map(result), label_map(truth)
        if predicted is not None and true is not None:
            number = len(self.names)
            known = (true != VOID) & (true < number - 1)
            columns = np.minimum(predicted[known].astype(np.int64), number - 1)
            pairs = true[known].astype(np.int64) * number + columns
            self.counts += np.bincount(pairs, minlength=number ** 2).reshape(number, number)
        elif result.instances is not None and truth.instances is not None:
            self.unit = 'objects'
            self._add_objects(result.instances, truth.instances)

    def _add_objects(self, predicted: list[Instance], true: list[Instance]) -> None:
        import pycocotools.mask as mask_utils

        predicted = [each for each in predicted if each.score is None or each.score >= self._score_thr]
        overlaps = np.zeros((len(predicted), len(true)))
        if predicted and true:
            overlaps = mask_utils.iou([each.mask for each in predicted], [each.mask for each in true], [0] * len(true))
        found = partners(overlaps)
        for j, each in enumerate(true):
            self.counts[each.label, predicted[found[j]].label if j in found else -1] += 1
        for i in set(range(len(predicted))) - set(found.values()):
            self.counts[-1, predicted[i].label] += 1

    def write_table(self, path: Path) -> None:
        """Write the counts as CSV, with names in the first row and column."""
        with path.open('w', newline='', encoding='utf-8') as file:
            writer = csv.writer(file)
            writer.writerow([f'truth / prediction ({self.unit})', *self.names])
            writer.writerows([name, *row.tolist()] for name, row in zip(self.names, self.counts, strict=True))

    def write_picture(self, path: Path) -> None:
        """Draw each row's shares in percent."""
        from matplotlib.figure import Figure

        shares = 100 * self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)
        size = min(max(4., 0.45 * len(self.names) + 2), 40.)
        figure = Figure(figsize=(size, size), layout='constrained')
        axes = figure.subplots()
        axes.imshow(shares, cmap='Blues', vmin=0, vmax=100)
        axes.set_xticks(range(len(self.names)), self.names, rotation=90)
        axes.set_yticks(range(len(self.names)), self.names)
        axes.set(xlabel='prediction', ylabel=f'truth (percent of its {self.unit})')
        if len(self.names) <= 40:
            for (row, column), share in np.ndenumerate(shares):
                if share >= 0.5:
                    axes.text(column, row, f'{share:.0f}', ha='center', va='center', fontsize=8,
                              color='white' if share > 50 else 'black')
        figure.savefig(path, dpi=100)


def label_map(result: Result) -> np.ndarray | None:
    """Class of each pixel, (H, W), ``VOID`` where it has none: of the semantic or else of the panoptic map."""
    if result.semantic is not None or result.panoptic is None:
        return result.semantic
    labels = np.full(max([0, *(each.id for each in result.segments)]) + 1, VOID, np.int32)
    for each in result.segments:
        labels[each.id] = each.label
    return labels[result.panoptic]


def partners(overlaps: np.ndarray) -> dict[int, int]:
    """Number of the prediction that finds each object, from IoUs (predictions, objects), of which more than 0.5 count.

    Predictions choose in their order, that of the scores.
    """
    found: dict[int, int] = {}
    for i in range(overlaps.shape[0]):
        free = [j for j in range(overlaps.shape[1]) if j not in found]
        best = max(free, key=lambda j, i=i: overlaps[i, j], default=None)  # type: ignore[misc]
        if best is not None and overlaps[i, best] > 0.5:
            found[best] = i
    return found
