"""Pictures of a few validation images after every validation: photo, truth and prediction."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor

from knet_plugin.checkpoint.whole_file import whole_file
from knet_plugin.registry import HOOKS

__all__ = ['SheetHook']


@HOOKS.register_module()
class SheetHook(Hook):
    """Writes ``sheet_<iteration>.jpg`` to the work folder after each validation.

    Args:
        images: Number of images, evenly spaced over the validation set; always the same ones.
        score_thr: Lowest score of the objects to draw.
    """

    priority = 'LOWEST'

    def __init__(self, images: int = 4, score_thr: float = 0.3) -> None:
        self.images = images
        self.score_thr = score_thr
        self._rows: list[list[np.ndarray | None]] = []
        self._works = True

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                       outputs: Sequence[Any] | None = None) -> None:
        """Draw the images of a batch that belong to the sheet."""
        if not self._works or runner.rank:
            return
        loader = runner.val_dataloader
        size = loader.batch_size or 1
        chosen = np.linspace(0, len(loader) * size, self.images, endpoint=False).astype(int)
        try:
            for i, sample in enumerate(outputs or ()):
                if batch_idx * size + i in chosen:
                    photo = _photo(data_batch['inputs'][i], sample.ori_shape)
                    self._rows.append(_row(photo, sample, loader.dataset.metainfo, self.score_thr))
        except Exception as error:  # never end a training for a picture
            self._fail(error)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Write the sheet."""
        rows, self._rows = self._rows, []
        if not rows or not self._works:
            return
        from knet_plugin.visualization import sheet

        path = Path(runner.work_dir, f'sheet_{runner.iter}.jpg')
        try:
            page = sheet(rows, ['photo', 'truth', 'prediction'])
            with whole_file(path) as draft:
                draft.write_bytes(cv2.imencode('.jpg', page[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
        except Exception as error:  # as above
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._works = False
        print_log(f'no pictures of validations: {type(error).__name__}: {error}', 'current', logging.WARNING)


def _photo(inputs: Tensor, size: Sequence[int]) -> np.ndarray:
    """Return an image (C, h, w) as the hosts load it, blue first, as (H, W, C) with red first."""
    image = inputs.cpu().numpy().transpose(1, 2, 0)
    if image.shape[2] == 3:
        image = image[..., ::-1]
    # OpenCV drops an axis of length 1.
    return cv2.resize(np.ascontiguousarray(image), size[1::-1], interpolation=cv2.INTER_AREA).reshape(*size[:2], -1)


def _row(photo: np.ndarray, sample: Any, meta: Mapping[str, Any], score_thr: float) -> list[np.ndarray | None]:
    """Photo, truth and prediction; truth is None if the validation loads none."""
    from knet_plugin.inference.sample_result import result_of_sample, truth_of_sample
    from knet_plugin.visualization import add_note, draw, score_line

    found, truth = result_of_sample(sample, meta), truth_of_sample(sample, meta)
    what = next(name for name in ('panoptic', 'instances', 'semantic') if getattr(found, name) is not None)
    drawn = [draw(photo, result, meta['classes'], what, meta.get('palette'), score_thr)
             if getattr(result, what) is not None else None for result in (truth, found)]
    if what == 'instances' and drawn[1] is not None:
        drawn[1] = add_note(drawn[1], score_line(found, score_thr))
    return [_small(picture) for picture in (photo, *drawn)]


def _small(picture: np.ndarray | None, width: int = 800) -> np.ndarray | None:
    if picture is None or picture.shape[1] <= width:
        return picture
    return cv2.resize(picture, (width, max(1, round(picture.shape[0] * width / picture.shape[1]))),
                      interpolation=cv2.INTER_AREA)
