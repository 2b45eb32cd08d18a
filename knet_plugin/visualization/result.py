"""What a model found in one image, independent of the host that computed it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ['PARTS', 'VOID', 'Instance', 'Result', 'Segment']

VOID = 255  # label of pixels without class in Result.semantic
PARTS = ('panoptic', 'instances', 'semantic')  # of a result, in the order of preference for drawing


@dataclass(frozen=True)
class Segment:
    """A segment of a panoptic map."""

    id: int  # its pixels in Result.panoptic, from 1
    label: int  # index into the classes
    is_thing: bool
    score: float | None = None  # None: ground truth, or the model gives none
    kernel: int | None = None  # that found it; None: ground truth, or another model than K-Net


@dataclass(frozen=True)
class Instance:
    """An object."""

    label: int
    score: float | None
    box: tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels
    mask: dict[str, Any]  # run-length encoding of pycocotools: size (height, width), counts as bytes
    kernel: int | None = None  # as of a segment


@dataclass
class Result:
    """Results of one image of size (H, W); what the model does not compute is None.

    Attributes:
        size: (height, width).
        panoptic: (H, W) int32 map of segment ids; 0 is void.
        segments: The segments of ``panoptic``.
        instances: Objects in order of decreasing score.
        semantic: (H, W) map of class indices; ``VOID`` has no class.
    """

    size: tuple[int, int]
    panoptic: np.ndarray | None = None
    segments: list[Segment] = field(default_factory=list)
    instances: list[Instance] | None = None
    semantic: np.ndarray | None = None

    @property
    def parts(self) -> list[str]:
        """Those of 'panoptic', 'instances' and 'semantic' that it has."""
        return [part for part in PARTS if getattr(self, part) is not None]
