"""Main scores of mmdet's and mmseg's metrics, in percent, and the one that decides which checkpoint is best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ['best_score_key', 'percent_scores', 'score_table']

# Title and factor of each score that a table shows, by the key under which the hosts report it.
_SCORES = {
    'coco_panoptic/PQ': ('PQ', 1), 'coco_panoptic/PQ_th': ('PQ things', 1), 'coco_panoptic/PQ_st': ('PQ stuff', 1),
    'coco/segm_mAP': ('mask AP', 100), 'coco/segm_mAP_50': ('mask AP50', 100), 'coco/segm_mAP_75': ('mask AP75', 100),
    'coco/bbox_mAP': ('box AP', 100), 'mIoU': ('mIoU', 1), 'mAcc': ('mAcc', 1), 'aAcc': ('aAcc', 1),
    'mDice': ('mDice', 1), 'mFscore': ('mFscore', 1),
}
_PANOPTIC = ('PQ', 'PQ things', 'PQ stuff', 'mask AP', 'mIoU')  # where there is PQ, the others are details


def percent_scores(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the main scores of an evaluation in percent, by their titles; of unknown metrics, all numbers as they are.

    mmdet marks a score that cannot be computed, such as that of large objects where there are none, by -1.
    """
    known = {title: factor * float(metrics[key]) for key, (title, factor) in _SCORES.items() if key in metrics}
    if 'PQ' in known:
        known = {title: value for title, value in known.items() if title in _PANOPTIC}
    others = {key: float(value) for key, value in metrics.items() if isinstance(value, int | float)}
    return {title: value for title, value in (known or others).items() if not -100 <= value < 0}


def best_score_key(evaluator: Any) -> str | None:
    """Return the metric of the task, as an evaluator's config reports it: PQ, otherwise mask AP, otherwise mIoU."""
    found = []
    for metric in evaluator if isinstance(evaluator, Sequence) else [evaluator]:
        if not isinstance(metric, Mapping) or metric.get('format_only'):
            continue
        name = str(metric.get('type')).rpartition('.')[2]
        if name in ('CocoPanopticMetric', 'PanopticMetric'):
            found.append((0, metric, 'coco_panoptic', 'PQ'))
        elif name in ('CocoMetric', 'InstanceMetric'):
            kinds = metric.get('metric', 'bbox' if name == 'CocoMetric' else 'segm')
            found.append((1, metric, 'coco', 'segm_mAP' if 'segm' in kinds else 'bbox_mAP'))
        elif name == 'IoUMetric' and 'mIoU' in metric.get('iou_metrics', ['mIoU']):
            found.append((2, metric, '', 'mIoU'))
    if not found:
        return None
    _, metric, prefix, key = min(found, key=lambda each: each[0])
    prefix = metric.get('prefix') or prefix
    return f'{prefix}/{key}' if prefix else key


def score_table(rows: Mapping[str, Mapping[str, float]], best: str | None = None) -> str:
    """Return a text table.

    Args:
        rows: Scores by title, for each row's name.
        best: Name of the row to mark.
    """
    titles = list(dict.fromkeys(title for scores in rows.values() for title in scores))
    first = max(len(name) for name in rows)
    widths = [max(len(title), 5) for title in titles]
    lines = [f'{"":{first}}  ' + '  '.join(f'{title:>{width}}' for title, width in zip(titles, widths, strict=True))]
    for name, scores in rows.items():
        cells = (f'{scores[title]:{width}.1f}' if title in scores else ' ' * width
                 for title, width in zip(titles, widths, strict=True))
        lines.append(f'{name:{first}}  ' + '  '.join(cells) + ('  * best' if name == best else ''))
    return '\n'.join(line.rstrip() for line in lines)
