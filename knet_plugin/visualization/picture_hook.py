"""One picture for each image of a test."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from knet_plugin.registry import HOOKS
from knet_plugin.visualization.drawing import PARTS, draw_or_note, first_part

__all__ = ['PictureHook', 'picture_files']


@HOOKS.register_module()
class PictureHook(Hook):
    """Draws predictions of a test to ``<out_dir>/<name of the image>.jpg``, whichever the task.

    Images of the same name in several folders keep their subfolders. The hosts' visualization hooks, which have folder
    rules of their own, are not needed beside it.

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
        self._files: dict[str, Path] = {}
        self._drawn = self._empty = 0

    def before_test(self, runner: Runner) -> None:
        """Choose the files of the pictures."""
        dataset = runner.test_loop.dataloader.dataset
        paths = []
        if hasattr(dataset, 'get_data_info'):
            paths = [dataset.get_data_info(index).get('img_path') for index in range(len(dataset))]
        self._files = picture_files(path for path in paths if path)
        self._drawn = self._empty = 0

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                        outputs: Sequence[BaseDataElement] | None = None) -> None:
        """Draw the predictions of a batch."""
        from knet_plugin.inference.sample_result import result_of_sample

        for sample in outputs or ():
            path = sample.metainfo['img_path']
            meta = runner.test_loop.dataloader.dataset.metainfo
            result = result_of_sample(sample, meta)
            what = first_part(result, self._what)
            if what is None:
                continue
            photo = _read(path, runner.test_loop.dataloader.dataset)
            picture, line = draw_or_note(photo, result, meta['classes'], what, meta.get('palette'), self._score_thr)
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


def _read(path: str, dataset: Any) -> np.ndarray:
    """Read an image as its data set does, as RGB."""
    while not hasattr(dataset, 'pipeline'):  # wrappers of the hosts
        dataset = dataset.datasets[0] if hasattr(dataset, 'datasets') else dataset.dataset
    loader = dataset.pipeline.transforms[0]
    image = loader(dict(img_path=path, img_id=0))['img']
    if image.dtype == np.float32 and getattr(loader, 'to_float32', False) and image.min() >= 0 and image.max() <= 255:
        image = image.astype(np.uint8)
    return image[..., [2, 1, 0]] if image.ndim == 3 and image.shape[2] == 3 else image
