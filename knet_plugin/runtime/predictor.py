"""Segments images with an exported model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from knet_plugin.inference.image_files import ColourReader
from knet_plugin.runtime.engines import open_engine
from knet_plugin.runtime.model_info import EngineError
from knet_plugin.visualization import Instance, Result, Segment, draw

__all__ = ['Predictor']


class Predictor:
    """An exported model with the interface of ``knet_plugin.Predictor``.

    ::

        predictor = Predictor('ped.onnx')
        result, = predictor('photo.jpg')

    Args:
        path: A file that ``knet export`` wrote with its post-processing inside.
        score_thr: Lowest score of what ``draw`` shows; by default that of the model. The panoptic map keeps the
            threshold with which the model was exported.
        threads: Threads of the engine; 0, all cores.

    Attributes:
        classes: Names of the classes.
        num_things: The first classes are things.
        palette: RGB of each class, or None.
        info: The model's description.

    Raises:
        EngineError: The file cannot be used; the message says what to do.
    """

    def __init__(self, path: str | Path, score_thr: float | None = None, threads: int = 0) -> None:
        self._engine = open_engine(path, threads)
        self.info = self._engine.info
        if not self.info.parts:
            raise EngineError(f'{path} returns logits: export it again with --postprocess in')
        self.reader = ColourReader()
        self.classes = self.info.classes
        self.num_things = self.info.num_things
        self.palette = self.info.palette
        self.score_thr = self.info.score_thr if score_thr is None else score_thr

    def __call__(self, images: Any) -> list[Result]:
        """Segment one image or several, and return a result of the size of the image for each.

        An image is a path, a PIL image, or an array (H, W, 3) in the order RGB or (H, W).

        Raises:
            ValueError: An image cannot be read; the message names the file.
        """
        if isinstance(images, str | np.ndarray) or not isinstance(images, Iterable):
            images = [images]
        return [self._predict(self.reader.picture(image)) for image in images]

    def draw(self, image: Any, result: Result, what: str | None = None, score_thr: float | None = None) -> np.ndarray:
        """Draw a result on its image; see ``knet_plugin.Predictor.draw``."""
        threshold = self.score_thr if score_thr is None else score_thr
        return draw(self.reader.picture(image), result, self.classes, what, self.palette, threshold)

    def _predict(self, image: np.ndarray) -> Result:
        try:
            found = self._engine(self.info.inputs(image))
        except Exception as error:  # each engine has its own errors
            reason = (str(error).strip().splitlines() or [''])[0]
            raise EngineError(f'the model failed on an image of {image.shape[1]} x {image.shape[0]} pixels '
                              f'({type(error).__name__}: {reason})') from error
        parts: dict[str, Any] = {}
        if 'panoptic' in found:
            labels, scores, kernels = (found[f'segment_{name}'] for name in ('labels', 'scores', 'kernels'))
            parts['panoptic'] = found['panoptic']
            things = labels < self.num_things
            parts['segments'] = [
                Segment(number, int(labels[number]), bool(things[number]),
                        float(scores[number]) if things[number] else None, int(kernels[number]))
                for number in range(1, int(found['panoptic'].max(initial=0)) + 1)]
        if 'masks' in found:
            parts['instances'] = self._instances(found)
        if 'semantic' in found:
            semantic = found['semantic']
            parts['semantic'] = semantic.astype(np.uint8) if len(self.classes) < 256 else semantic
        return Result(image.shape[:2], **parts)

    @staticmethod
    def _instances(found: dict[str, np.ndarray]) -> list[Instance]:
        import pycocotools.mask as mask_utils  # here, because semantic segmentation works without it

        masks = [mask_utils.encode(cv2.transpose(mask).T) for mask in found['masks']]  # no copy of them all
        return [Instance(*each) for each in zip(
            found['labels'].tolist(), found['scores'].tolist(), map(tuple, found['boxes'].tolist()), masks,
            found['kernels'].tolist(), strict=True)]
