"""Colours of classes and objects."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

__all__ = ['NEAR', 'class_colours', 'difference', 'palette', 'shades', 'text_colour']

Colour = tuple[int, int, int]

NEAR = 18.0  # colours that differ less in CIE Lab are hard to tell apart as tints of a photo
_SHADES = 8  # a map of regions that touch needs at most six
_HUES = 12
_SHADE_RADIUS = 42.0  # in CIE Lab
# Vivid, and as different as possible from each other; all further colours are computed.
_FIRST: tuple[Colour, ...] = (
    (255, 72, 72), (38, 132, 255), (46, 204, 113), (255, 178, 30), (160, 90, 255), (0, 206, 209), (255, 105, 190),
    (156, 204, 20), (255, 120, 30), (92, 80, 220), (0, 150, 110), (190, 110, 60), (240, 230, 60), (130, 195, 255),
    (190, 30, 110), (200, 160, 255), (110, 140, 60), (255, 170, 150), (20, 110, 150), (150, 240, 190))


def palette(number: int) -> list[Colour]:
    """Return ``number`` distinct RGB colours; always the same, and a longer palette starts like a shorter one."""
    return list(_spread(_FIRST, number))


def shades(colour: Colour, wide: bool = False) -> list[Colour]:
    """Return RGB colours for objects of one class, the class's own first; of all hues if ``wide``."""
    if wide:
        return list(_spread((colour, *(first for first in _FIRST if first != colour)), _HUES))
    return list(_spread((colour,), _SHADES, _SHADE_RADIUS))


def class_colours(given: Any, number: int) -> list[Colour]:
    """Return the colour of each of ``number`` classes.

    Args:
        given: What configs hold as ``palette``: RGB tuples. Where there is none, as with None or a name such as
            'random', colours are those of ``palette``.
        number: Number of classes.
    """
    colours = palette(number)
    rows = [] if given is None or isinstance(given, str) else list(given)[:number]
    for index, colour in enumerate(rows):
        if not isinstance(colour, str) and np.size(colour) == 3:
            red, green, blue = np.clip(colour, 0, 255).astype(int).tolist()
            colours[index] = red, green, blue
    return colours


@lru_cache(maxsize=4096)
def difference(first: Colour, second: Colour) -> float:
    """Return the difference of two RGB colours in CIE Lab (1976)."""
    lab = _lab([first, second])
    return float(np.linalg.norm(lab[0] - lab[1]))


def text_colour(background: Sequence[int]) -> Colour:
    """Return black or white, whichever contrasts more with an RGB colour (WCAG's relative luminance)."""
    luminance = float((np.asarray(background) / 255) ** 2.2 @ (0.2126, 0.7152, 0.0722))
    return (0, 0, 0) if (luminance + 0.05) ** 2 > 1.05 * 0.05 else (255, 255, 255)


def _lab(colours: Any) -> np.ndarray:
    return cv2.cvtColor(np.asarray(colours, np.float32)[None] / 255, cv2.COLOR_RGB2LAB)[0]


@lru_cache(maxsize=4096)
def _spread(first: tuple[Colour, ...], number: int, radius: float = np.inf) -> tuple[Colour, ...]:
    """Extend ``first`` to ``number`` colours, each as far as possible from those before, within a radius of the first.

    The radius grows where it holds few colours, as around black and white.
    """
    steps = np.arange(0, 256, 17)
    colours = np.stack(np.meshgrid(steps, steps, steps, indexing='ij'), -1).reshape(-1, 3)
    lab, start = _lab(colours), _lab(first)
    good = (lab[:, 0] > 40) & (lab[:, 0] < 90) & (np.hypot(lab[:, 1], lab[:, 2]) > 30)  # not dark, pale or grey
    colours, lab = colours[good], lab[good]
    distances = np.linalg.norm(lab - start[0], axis=1)
    while np.count_nonzero(distances < radius) < min(10 * number, len(lab)):
        radius *= 1.5
    colours, lab = colours[distances < radius], lab[distances < radius]
    nearest = np.linalg.norm(lab[:, None] - start[None], axis=2).min(axis=1)
    chosen = list(first[:max(0, number)])
    while len(chosen) < number:
        best = int(nearest.argmax())
        chosen.append(tuple(colours[best].tolist()))
        nearest = np.minimum(nearest, np.linalg.norm(lab - lab[best], axis=1))
    return tuple(chosen)
