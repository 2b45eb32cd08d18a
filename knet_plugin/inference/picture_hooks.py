"""Pictures of a run's predictions: a sheet of each validation, or a file for each image of a test."""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from knet_plugin.inference.images import ImageReader, split_pipeline
from knet_plugin.registry import HOOKS
from knet_plugin.visualization import PARTS, Result, draw_or_note, sheet
from knet_plugin.visualization.sample_result import result_of_sample, truth_of_sample

__all__ = ['PictureHook', 'SheetHook', 'draw_row', 'picture_files']


def draw_row(photo: np.ndarray, result: Result, truth: Result, meta: Mapping[str, Any],
             score_thr: float) -> dict[str, np.ndarray | None]:
    """Draw a row of a sheet: the photo, the truth (None without annotations), and each part of the prediction."""
    def drawn(each: Result, part: str) -> np.ndarray:
        return draw_or_note(photo, each, meta['classes'], part, meta.get('palette'), score_thr)[0]

    first = result.parts[0]
    row = {'photo': photo, 'truth': drawn(truth, first) if first in truth.parts else None}
    return row | {part: drawn(result, part) for part in result.parts}


@HOOKS.register_module()
class SheetHook(Hook):
    """Writes ``sheet_<iteration>.jpg`` to the work folder after each validation: photo, truth and prediction.

    Args:
        images: Number of images, evenly spaced over the validation set; always the same ones.
        score_thr: Lowest score of the objects to draw.
    """

    priority = 'LOWEST'

    def __init__(self, images: int = 4, score_thr: float = 0.3) -> None:
        self.images = images
        self.score_thr = score_thr
        self._rows: list[np.ndarray] = []
        self._works = True

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                       outputs: Sequence[BaseDataElement] | None = None) -> None:
        """Draw the images of a batch that belong to the sheet."""
        if not self._works or runner.rank:
            return
        loader = runner.val_dataloader
        size = loader.batch_size or 1
        chosen = np.linspace(0, len(loader) * size, self.images, endpoint=False).astype(int)
        with self._without_failing():
            for i, sample in enumerate(outputs or ()):
                if batch_idx * size + i in chosen:
                    self._rows.append(self._draw(runner, sample))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Write the sheet."""
        rows, self._rows = self._rows, []
        if rows and self._works:
            with self._without_failing():
                mmcv.imwrite(np.concatenate(rows)[..., ::-1], str(Path(runner.work_dir, f'sheet_{runner.iter}.jpg')))

    @contextlib.contextmanager
    def _without_failing(self) -> Iterator[None]:
        """Turn an error into a warning: a training must not end for a picture."""
        try:
            yield
        except Exception as error:
            self._works = False
            print_log(f'no pictures of validations: {type(error).__name__}: {error}', 'current', logging.WARNING)

    def _draw(self, runner: Runner, sample: BaseDataElement) -> np.ndarray:
        meta = runner.val_dataloader.dataset.metainfo
        reader, _ = split_pipeline(runner.cfg.val_dataloader)
        result, truth = result_of_sample(sample, meta), truth_of_sample(sample, meta)
        row = draw_row(reader.picture(sample.metainfo['img_path']), result, truth, meta, self.score_thr)
        titles = [] if self._rows else ['photo', 'truth', 'prediction']
        return sheet([list(row.values())[:3]], titles)  # a small picture: photos may be large


@HOOKS.register_module()
class PictureHook(Hook):
    """Draws predictions of a test to ``<out_dir>/<name of the image>.jpg``, whichever the task.

    Images of the same name in several folders keep their subfolders.

    Args:
        out_dir: Folder, absolute or in the work folder.
        what: 'panoptic', 'instances' or 'semantic'; None takes the first of these that the model predicts.
        score_thr: Lowest score of an object.
    """

    priority = 'LOW'

    def __init__(self, out_dir: str = 'pictures', what: str | None = None, score_thr: float = 0.3) -> None:
        if what is not None and what not in PARTS:
            raise ValueError(f'what must be one of {", ".join(PARTS)}, or None, got {what!r}')
        self._out_dir = out_dir
        self._what = what
        self._score_thr = score_thr
        self._reader: ImageReader | None = None
        self._files: dict[str, Path] = {}
        self._drawn = self._empty = 0

    def before_test(self, runner: Runner) -> None:
        """Choose the files of the pictures."""
        dataset = runner.test_loop.dataloader.dataset
        paths = []
        if hasattr(dataset, 'get_data_info'):
            paths = [dataset.get_data_info(index).get('img_path') for index in range(len(dataset))]
        self._files = picture_files(path for path in paths if path)
        self._reader, _ = split_pipeline(runner.cfg.test_dataloader)
        self._drawn = self._empty = 0

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                        outputs: Sequence[BaseDataElement] | None = None) -> None:
        """Draw the predictions of a batch."""
        assert self._reader is not None
        meta = runner.test_loop.dataloader.dataset.metainfo
        for sample in outputs or ():
            path = sample.metainfo['img_path']
            result = result_of_sample(sample, meta)
            what = self._what if self._what in result.parts else None
            picture, line = draw_or_note(self._reader.picture(path), result, meta['classes'], what, meta.get('palette'),
                                         self._score_thr)
            target = Path(runner.work_dir, self._out_dir, self._files.get(path) or Path(path).with_suffix('.jpg').name)
            mmcv.imwrite(picture[..., ::-1], str(target))
            self._drawn += 1
            self._empty += bool(line)

    def after_test(self, runner: Runner) -> None:
        """Log where the pictures are, and how many are empty."""
        empty = f', {self._empty} without anything above {self._score_thr:.2f}' if self._empty else ''
        print_log(f'{self._drawn} pictures in {Path(runner.work_dir, self._out_dir)}{empty}', logger='current')


def picture_files(paths: Iterable[str]) -> dict[str, Path]:
    """Return the relative file of each image's picture.

    That is ``<name>.jpg`` if all names differ, and otherwise the path below the common folder of all images; images
    that differ in their extension only keep it (``a.png.jpg``).
    """
    unique = list(dict.fromkeys(paths))
    files = {path: Path(path).with_suffix('.jpg') for path in unique}
    if len({file.name for file in files.values()}) == len(unique):
        return {path: Path(file.name) for path, file in files.items()}
    folder = os.path.commonpath([os.path.dirname(path) for path in unique])
    times = Counter(files.values())
    return {path: Path(os.path.relpath(file if times[file] == 1 else f'{path}.jpg', folder or '.'))
            for path, file in files.items()}
