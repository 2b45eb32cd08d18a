"""Writes what a test shows: figures, pictures beside the ground truth, and which classes are confused."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mmcv
import numpy as np
import torch
from mmengine.dist import all_gather_object, all_reduce, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from knet_plugin.inference.analysis import Analysis
from knet_plugin.inference.confusion import Confusion
from knet_plugin.inference.images import split_pipeline
from knet_plugin.inference.picture_hooks import draw_row
from knet_plugin.registry import HOOKS
from knet_plugin.visualization import Result, sheet
from knet_plugin.visualization.sample_result import result_of_sample, truth_of_sample

__all__ = ['ReportHook']

_ROWS = 6  # images on a sheet
_FILES = ('metrics.*', 'confusion.*', 'classes.csv', 'sizes.csv', 'images.csv', 'sheet_*.jpg', 'best.jpg', 'worst.jpg')


class _Judged(NamedTuple):
    quality: float
    path: str
    result: Result
    truth: Result


def _ends(judged: list[_Judged]) -> list[_Judged]:
    """The worst and the best images, sorted by quality."""
    judged = sorted(judged, key=lambda each: (each.quality, each.path))
    return judged if len(judged) <= 2 * _ROWS else judged[:_ROWS] + judged[-_ROWS:]


@HOOKS.register_module()
class ReportHook(Hook):
    """Writes the report of a test.

    - ``metrics.json`` and ``metrics.csv``: the scores;
    - ``confusion.png`` and ``confusion.csv``: which classes are taken for which;
    - ``classes.csv``, ``sizes.csv`` and ``images.csv``: what ``Analysis`` counts;
    - ``sheet_1.jpg`` ...: pictures; ``best.jpg`` and ``worst.jpg``: the images with the best and the worst quality.

    Args:
        folder: Where.
        score_thr: Lowest score of an object in pictures and among the confusions.
        pictures: Number of images on the sheets, the first of the data set.
    """

    priority = 'LOW'

    def __init__(self, folder: str, score_thr: float = 0.3, pictures: int = 24) -> None:
        self.folder = Path(folder)
        self.score_thr = score_thr
        self.pictures = pictures

    def before_test_epoch(self, runner: Runner) -> None:
        """Start anew."""
        self._meta = runner.test_loop.dataloader.dataset.metainfo
        self._reader, _ = split_pipeline(runner.cfg.test_dataloader)
        self._confusion = Confusion(self._meta['classes'], self.score_thr)
        self._analysis = Analysis(self._meta['classes'], self.score_thr)
        self._judged: list[_Judged] = []
        self._rows: list[dict[str, np.ndarray | None]] = []
        self._drawn = 0
        self.folder.mkdir(parents=True, exist_ok=True)
        if is_main_process():  # an older report may have other files
            for pattern in _FILES:
                for file in self.folder.glob(pattern):
                    file.unlink()

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                        outputs: Sequence[BaseDataElement] | None = None) -> None:
        """Count and draw the images of a batch."""
        for sample in outputs or ():
            result, truth = result_of_sample(sample, self._meta), truth_of_sample(sample, self._meta)
            path = sample.metainfo['img_path']
            self._confusion.add(result, truth)
            quality = self._analysis.add(path, result, truth)
            if quality is not None:
                self._judged = _ends([*self._judged, _Judged(quality, path, result, truth)])
            if is_main_process() and self._drawn < self.pictures:
                self._rows.append(self._row(path, result, truth))
                self._drawn += 1
                if len(self._rows) == _ROWS:
                    self._write_sheet()

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the files."""
        counts = torch.from_numpy(self._confusion.counts)
        all_reduce(counts)
        self._confusion.counts = counts.numpy()
        self._analysis.records = sum(all_gather_object(self._analysis.records), [])
        self._judged = _ends(sum(all_gather_object(self._judged), []))
        if not is_main_process():
            return
        if self._rows:
            self._write_sheet()
        figures = {name: float(value) for name, value in (metrics or {}).items()}
        (self.folder / 'metrics.json').write_text(json.dumps(figures, indent=2) + '\n')
        with (self.folder / 'metrics.csv').open('w', newline='') as file:
            csv.writer(file).writerows([('metric', 'value'), *figures.items()])
        if self._confusion.counts.any():
            self._confusion.write_table(self.folder / 'confusion.csv')
            self._confusion.write_picture(self.folder / 'confusion.png')

        if self._analysis.records:
            self._analysis.write(self.folder)
            for name, judged in (('worst', self._judged[:_ROWS]), ('best', self._judged[:-_ROWS - 1:-1])):
                self._write(name, [self._row(each.path, each.result, each.truth) for each in judged])

    def _row(self, path: str, result: Result, truth: Result) -> dict[str, np.ndarray | None]:
        return draw_row(self._reader.picture(path), result, truth, self._meta, self.score_thr)

    def _write_sheet(self) -> None:
        self._write(f'sheet_{(self._drawn - 1) // _ROWS + 1}', self._rows)
        self._rows.clear()

    def _write(self, name: str, rows: list[dict[str, np.ndarray | None]]) -> None:
        page = sheet([list(row.values()) for row in rows], list(rows[0]))
        mmcv.imwrite(page[..., ::-1], str(self.folder / f'{name}.jpg'))
