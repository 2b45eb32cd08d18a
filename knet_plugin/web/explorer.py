"""The kernels of a picture: their masks and scores from stage to stage, and how they act on each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from knet_plugin import runtime
from knet_plugin.web.answers import heat_map
from knet_plugin.web.gallery import Gallery

__all__ = ['Explorer']

SHOWN = 6  # of other kernels
AVERAGED = 32  # images


class Explorer:
    """Looks into the models of a gallery; it needs their checkpoints.

    Args:
        gallery: The models and pictures.
        images: For average activations; by default validation images of the run.
    """

    def __init__(self, gallery: Gallery, images: list[Path]) -> None:
        self._gallery = gallery
        self._images = images
        self._last: tuple[int, str] | None = None  # whose trace is kept: one takes megabytes
        self._trace: Any = None
        self._averages: dict[str, np.ndarray] = {}

    def explore(self, number: int, model: str, x: float, y: float, kernel: int | None) -> dict[str, Any]:
        """What a kernel does, by default the strongest one at a point.

        Args:
            number: Of the picture.
            model: Name.
            x: Of the point, as a share of the width.
            y: As a share of the height.
            kernel: Its index.

        Returns:
            ``kernel``; ``stages``, M_0 .. M_S each with the heat map ``mask``, and from M_1 on ``name`` and ``score``
            of the best class; ``attention``, the kernels to which it attends most in the last stage; ``rivals``, the
            kernels with the highest probability at the point.

        Raises:
            ValueError: The model has no stages to look at, or no such kernel.
        """
        predictor = self._predictor(model)
        from knet_plugin.inference.kernel_trace import trace_kernels  # here, because it needs torch

        picture = self._gallery.picture(number)
        with self._gallery.lock:
            if self._last != (number, model):
                self._last, self._trace = None, None
                self._trace = trace_kernels(predictor, picture.image)
                self._last = number, model
            trace = self._trace
        masks = trace.masks
        height, width = masks.shape[-2:]
        at_point = masks[-1, :, min(max(int(y * height), 0), height - 1), min(max(int(x * width), 0), width - 1)]

        def entry(index: int, stage: int = -1) -> dict[str, Any]:
            if trace.scores is None:
                label = 1 if len(at_point) == 1 else index  # a single kernel is that of class 1
                return dict(kernel=int(index), name=str(predictor.classes[label]), score=None)
            return dict(kernel=int(index), name=str(predictor.classes[trace.labels[stage, index]]),
                        score=float(trace.scores[stage, index]))

        strength = at_point if trace.scores is None else at_point * trace.scores[-1]
        kernel = int(strength.argmax()) if kernel is None else kernel
        if not 0 <= kernel < len(at_point):
            raise ValueError(f'{model} has kernels 0 to {len(at_point) - 1}, not {kernel}')
        stages = [dict(mask=heat_map(stage[kernel]), **(entry(kernel, i - 1) if i else {}))
                  for i, stage in enumerate(masks)]
        answer = dict(kernel=kernel, stages=stages, averages=not trace.from_image, rivals=[
            dict(entry(index), share=float(at_point[index])) for index in np.argsort(-at_point)[:SHOWN]])
        if trace.attention is not None:
            row = trace.attention[-1, kernel]
            answer['attention'] = [dict(entry(index), share=float(row[index])) for index in np.argsort(-row)[:SHOWN]]
        return answer

    def average(self, model: str, kernel: int) -> dict[str, Any]:
        """The heat map of a kernel's average activation (Fig. 4a), relative to its largest value, over a data set.

        Raises:
            ValueError: There are no images, or the model makes its kernels anew for each image.
        """
        predictor = self._predictor(model)
        from knet_plugin.inference.kernel_trace import average_masks
        from knet_plugin.inference.run_folder import images_of_run

        def one_by_one(images: list[Path]) -> Iterator[Path]:
            for image in images:
                with self._gallery.lock:  # free between two images, for other requests
                    yield image

        if model not in self._averages:
            images = self._images[:AVERAGED] or images_of_run(predictor.cfg, 'val_dataloader', AVERAGED)
            self._averages[model] = average_masks(predictor, one_by_one(images))
        if not 0 <= kernel < len(self._averages[model]):
            raise ValueError(f'{model} has kernels 0 to {len(self._averages[model]) - 1}, not {kernel}')
        mean = self._averages[model][kernel]
        return dict(mask=heat_map(mean / max(mean.max(), 1e-6)), largest=float(mean.max()))

    def _predictor(self, model: str) -> Any:
        predictor = self._gallery.predictor(model)
        if isinstance(predictor, runtime.Predictor):
            raise ValueError(f'{model} is an exported model, which has no stages to look at: open its checkpoint')
        return predictor
