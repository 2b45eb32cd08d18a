"""Writes what a test shows: figures, pictures beside the ground truth, and which classes are confused."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from knet_plugin.inference.confusion import Confusion
from knet_plugin.inference.images import split_pipeline
from knet_plugin.inference.picture_hooks import draw_row
from knet_plugin.registry import HOOKS
from knet_plugin.visualization import sheet
from knet_plugin.visualization.sample_result import result_of_sample, truth_of_sample

__all__ = ['ReportHook']

_ROWS = 6  # images on a sheet


@HOOKS.register_module()
class ReportHook(Hook):
    """Writes ``metrics.json``, ``metrics.csv``, ``confusion.png``, ``confusion.csv`` and ``sheet_1.jpg`` ... of a test.

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
        self._rows: list[dict[str, np.ndarray | None]] = []
        self._drawn = 0
        self.folder.mkdir(parents=True, exist_ok=True)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                        outputs: Sequence[BaseDataElement] | None = None) -> None:
        """Count and draw the images of a batch."""
        for sample in outputs or ():
            result, truth = result_of_sample(sample, self._meta), truth_of_sample(sample, self._meta)
            self._confusion.add(result, truth)
            if is_main_process() and self._drawn < self.pictures:
                photo = self._reader.picture(sample.metainfo['img_path'])
                self._rows.append(draw_row(photo, result, truth, self._meta, self.score_thr))
                self._drawn += 1
                if len(self._rows) == _ROWS:
                    self._write_sheet()

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the files."""
        counts = torch.from_numpy(self._confusion.counts)
        all_reduce(counts)
        self._confusion.counts = counts.numpy()
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

    def _write_sheet(self) -> None:
        page = sheet([list(row.values()) for row in self._rows], list(self._rows[0]))
        mmcv.imwrite(page[..., ::-1], str(self.folder / f'sheet_{(self._drawn - 1) // _ROWS + 1}.jpg'))
        self._rows.clear()
