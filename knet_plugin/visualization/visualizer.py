"""Visualizer for the runners, hooks and inferencers of both hosts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mmcv
import numpy as np
from mmengine.dist import master_only
from mmengine.logging import MMLogger
from mmengine.structures import BaseDataElement
from mmengine.visualization import Visualizer as HostVisualizer

from knet_plugin import compat
from knet_plugin.registry import VISUALIZERS
from knet_plugin.visualization.drawing import draw_or_note
from knet_plugin.visualization.photo import as_rgb
from knet_plugin.visualization.result import PARTS, Result
from knet_plugin.visualization.sample_result import result_of_sample, truth_of_sample

__all__ = ['Visualizer']

if compat.installed('mmseg'):  # MMSegInferencer takes only subclasses of mmseg's visualizer
    from mmseg.visualization import SegLocalVisualizer as _Base
else:
    _Base = HostVisualizer


@VISUALIZERS.register_module()
class Visualizer(_Base):
    """Draws data samples of mmdet and mmseg with ``draw``.

    Replaces the visualizer of a config: ``visualizer=dict(type='knet_plugin.Visualizer', ...)``. Names and colours of
    classes come from ``dataset_meta``, which runners and inferencers set.

    Args:
        name, image, vis_backends, save_dir: See mmengine's visualizer.
        what: 'panoptic', 'instances' or 'semantic'. None, or where a sample has no such part: the first of these that
            it has.
    """

    def __init__(self, name: str = 'visualizer', image: np.ndarray | None = None,
                 vis_backends: list[dict] | dict | None = None, save_dir: str | None = None,
                 what: str | None = None) -> None:
        if what is not None and what not in PARTS:
            raise ValueError(f'what must be one of {", ".join(PARTS)}, or None, got {what!r}')
        HostVisualizer.__init__(self, name, image, vis_backends, save_dir)
        self.what = what
        self.dataset_meta: dict[str, Any] = {}
        self._picture: np.ndarray | None = None

    def set_dataset_meta(self, classes: Sequence[str] | None = None, palette: Any = None,
                         dataset_name: str | None = None) -> None:
        """Set class names and colours, for mmseg's inferencer; what is None stays, or is that of mmseg's data set."""
        if dataset_name is not None:
            from mmseg.utils import get_classes, get_palette
            classes, palette = classes or get_classes(dataset_name), palette or get_palette(dataset_name)
        given = {key: value for key, value in (('classes', classes), ('palette', palette)) if value is not None}
        self.dataset_meta = {**(self.dataset_meta or {}), **given}

    @master_only
    def add_datasample(self, name: str, image: np.ndarray, data_sample: BaseDataElement | None = None,
                       draw_gt: bool = True, draw_pred: bool = True, show: bool = False, wait_time: float = 0,
                       out_file: str | None = None, pred_score_thr: float = 0.3, step: int = 0,
                       with_labels: bool = True) -> None:
        """Draw a sample: ground truth left, prediction right, whichever it has.

        A prediction of which nothing is drawn gives the photo with a note, and a line in the log.

        Args:
            name: Name of the picture for the backends.
            image: (H, W, 3) uint8 RGB, or what ``as_rgb`` takes.
            data_sample: ``DetDataSample`` or ``SegDataSample``. None: the plain photo.
            draw_gt, draw_pred: Draw ground truth; draw predictions.
            show, wait_time: Show the picture in a window, for so many seconds; 0 waits for a key.
            out_file: File to write, instead of the backends.
            pred_score_thr: Lowest score of a predicted object.
            step: Step for the backends.
            with_labels: Write names.
        """
        photo = as_rgb(image)
        meta = self.dataset_meta or {}
        if not meta.get('classes'):
            meta = {**meta, 'classes': tuple(f'class {label}' for label in range(255))}
        gap = np.full((len(photo), max(2, photo.shape[1] // 100), 3), 255, np.uint8)
        pictures: list[np.ndarray] = []
        for result, is_truth in _results(data_sample, meta, photo.shape[:2], draw_gt, draw_pred):
            part = self.what if self.what in result.parts else None
            picture, line = draw_or_note(photo, result, meta['classes'], part, meta.get('palette'),
                                         0. if is_truth else pred_score_thr, with_labels)
            if line and not is_truth:
                MMLogger.get_current_instance().info(f'{name}: {line}')
            pictures += [gap, picture]
        self._picture = np.concatenate(pictures[1:] or [photo], axis=1)
        if show:
            self.show(self._picture, win_name=name, wait_time=wait_time)
        if out_file is not None:
            mmcv.imwrite(self._picture[..., ::-1], out_file)
        else:
            self.add_image(name, self._picture, step)

    @master_only
    def set_image(self, image: np.ndarray) -> None:
        """Set the image on which mmengine's ``draw_*`` methods draw."""
        self._picture = None
        super().set_image(image)

    @master_only
    def get_image(self) -> np.ndarray:
        """Return the last picture, (H, W, 3) uint8 RGB."""
        return self._picture if self._picture is not None else super().get_image()


def _results(sample: BaseDataElement | None, meta: Mapping[str, Any], size: Sequence[int], truth: bool,
             prediction: bool) -> list[tuple[Result, bool]]:
    """Return what a sample holds, and whether each is ground truth."""
    if sample is None:
        return []
    if 'ori_shape' not in sample.metainfo:
        sample = sample.clone()
        sample.set_metainfo(dict(ori_shape=tuple(size), img_shape=tuple(size)))
    results = [(truth_of_sample(sample, meta), True)] if truth else []
    if prediction and any(key in sample for key in ('pred_panoptic_seg', 'pred_instances', 'pred_sem_seg')):
        results.append((result_of_sample(sample, meta), False))
    return [(result, is_truth) for result, is_truth in results if result.parts]
