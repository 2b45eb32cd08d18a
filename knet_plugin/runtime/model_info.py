"""What an exported model says about itself: one JSON text inside its file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

import cv2
import numpy as np

__all__ = ['INFO_KEY', 'PRECISIONS', 'EngineError', 'ModelInfo']

INFO_KEY = 'knet'  # name of the text in the file
PRECISIONS = ('fp32', 'fp16', 'int8')
FORMAT = 2  # of the text; a reader refuses others


class EngineError(ValueError):
    """A file is no exported model, or cannot be run here; the message says what to do."""


@dataclass(frozen=True)
class ModelInfo:
    """Description of an exported model.

    Attributes:
        version: Version of knet_plugin that wrote it.
        parts: What it finds: of 'panoptic', 'instances' and 'semantic'; empty if it returns logits.
        outputs: Names of what the file returns, in its order.
        classes: Names; things come first.
        num_things: Number of things.
        palette: RGB of each class, or None.
        score_thr: Lowest score of an object that is shown.
        resize: Width and height of ``Resize`` in the test pipeline, or None.
        keep_ratio: Whether ``resize`` keeps the ratio of the sides.
        size: Height and width of the input, or None if they are free.
        align_corners: Whether results are resized with aligned corners.
        fill: RGB of the padding of a fixed input.
        precision: 'fp32', 'fp16' (of the weights) or 'int8' (of the convolutions).
        format: Version of this description.
    """

    version: str
    parts: tuple[str, ...]
    outputs: tuple[str, ...]
    classes: tuple[str, ...]
    num_things: int
    palette: tuple[tuple[int, ...], ...] | None
    score_thr: float
    resize: tuple[int, int] | None
    keep_ratio: bool
    size: tuple[int, int] | None
    align_corners: bool
    fill: tuple[int, ...]
    precision: str = 'fp32'
    format: int = FORMAT

    def to_json(self) -> str:
        """Return the text that the file carries."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | None, file: Any) -> ModelInfo:
        """Read the text.

        Raises:
            EngineError: There is none, or it was written by a version that this one does not know.
        """
        if not text:
            raise EngineError(f'{file} is not a model that `knet export` wrote')
        content = json.loads(text)
        if content.get('format') != FORMAT or content.keys() != {field.name for field in fields(cls)}:
            from knet_plugin import __version__

            raise EngineError(f'{file} was exported by knet_plugin {content.get("version")}, and this is '
                              f'{__version__}: export the model again, or install that version')
        return cls(**{name: _as_tuples(value) for name, value in content.items()})

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width to which an image is resized."""
        target = self.resize if self.size is None or self.resize else self.size[::-1]
        if target is None:
            return height, width
        if not self.keep_ratio:
            return (target[1], target[0]) if self.size is None else self.size
        long, short = max(target), min(target)
        factor = min(long / max(height, width), short / min(height, width))
        if self.size is not None:
            factor = min(factor, self.size[0] / height, self.size[1] / width)
        return int(height * factor + 0.5), int(width * factor + 0.5)  # as mmcv rounds

    def inputs(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Return the model's inputs for an image (H, W, 3) uint8 RGB.

        ``image`` (1, h, w, 3) is the resized image; ``rows`` (H,) and ``columns`` (W,), which a model that returns
        logits has not, are the positions in it at which the model computes its results.
        """
        height, width = image.shape[:2]
        resized_height, resized_width = self.input_size(height, width)
        resized = image
        if (resized_height, resized_width) != (height, width):
            resized = cv2.resize(image, (resized_width, resized_height), interpolation=cv2.INTER_LINEAR)
        if self.size not in (None, (resized_height, resized_width)):
            canvas = np.empty((*self.size, 3), np.uint8)
            canvas[:] = self.fill
            canvas[:resized_height, :resized_width] = resized
            resized = canvas
        inputs = dict(image=np.ascontiguousarray(resized[None]))
        if self.parts:
            inputs |= dict(rows=self.positions(height, resized_height), columns=self.positions(width, resized_width))
        return inputs

    def positions(self, length: int, input_length: int) -> np.ndarray:
        """Where the pixels of the result lie in the input, along one axis of these two lengths, (length,) float32."""
        index = np.arange(length, dtype=np.float64)
        if self.align_corners:
            places = index * ((input_length - 1) / max(length - 1, 1))
        else:
            places = (index + 0.5) * (input_length / length) - 0.5
        return places.clip(0, input_length - 1).astype(np.float32)


def _as_tuples(value: Any) -> Any:
    """JSON's lists as tuples."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
