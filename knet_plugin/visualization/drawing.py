"""Pictures of results on their photos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from knet_plugin.visualization.colours import class_colours
from knet_plugin.visualization.labels import Wanted, place_labels
from knet_plugin.visualization.photo import as_rgb, font_size, line_width, strips
from knet_plugin.visualization.regions import Region, region_map
from knet_plugin.visualization.result import VOID, Result
from knet_plugin.visualization.text import can_show, text_size, write

__all__ = ['add_note', 'draw', 'draw_or_note', 'score_line']

# Opacity of the colour: inside a region, and on its outline.
_THING, _STUFF, _CLASS = (0.45, 1.0), (0.3, 0.45), (0.42, 0.9)


def draw(image: np.ndarray, result: Result, classes: Sequence[str], what: str | None = None, palette: Any = None,
         score_thr: float = 0.3, with_labels: bool = True) -> np.ndarray:
    """Draw a result, or ground truth, on its photo.

    Pixels of no region stay exactly as they are, so an empty result gives the plain photo.

    Args:
        image: (H, W, 3) uint8 RGB; other types and numbers of channels as ``as_rgb`` takes them.
        result: What to draw; its size is (H, W).
        classes: Names; labels outside are drawn in grey or by number.
        what: 'panoptic', 'instances' or 'semantic'. None: the first of these that the result has.
        palette: RGB of each class; None or a name gives our own.
        score_thr: Lowest score of an instance, or of a panoptic segment that has a score.
        with_labels: Write names, and scores of objects.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: Sizes differ, or the result has no such part.
    """
    picture = as_rgb(image)
    if picture.shape[:2] != tuple(result.size):
        raise ValueError(f'image is {picture.shape[0]} x {picture.shape[1]} pixels, but its result '
                         f'{result.size[0]} x {result.size[1]}')
    what = what or next(iter(result.parts), 'panoptic')
    index, regions = region_map(result, what, class_colours(palette, len(classes)), score_thr)
    if not regions:
        return picture
    _paint(picture, index, regions, what)
    if with_labels:
        size = font_size(*result.size)
        for label in place_labels(index, _wanted(regions, classes, size, what)):
            region = regions[label.number - 1]
            boxed = region.is_thing or what == 'semantic'
            write(picture, label.text, label.box[:2], label.size, region.colour if boxed else None)
    return picture


def draw_or_note(image: np.ndarray, result: Result, classes: Sequence[str], what: str | None = None,
                 palette: Any = None, score_thr: float = 0.3, with_labels: bool = True) -> tuple[np.ndarray, str]:
    """Draw as ``draw`` does; where there is nothing to draw, write why on the photo.

    Returns:
        The picture, and the line that was written on it, such as '0 of 20 above 0.30; best 0.27', or ''.
    """
    photo = as_rgb(image)
    picture = draw(photo, result, classes, what, palette, score_thr, with_labels)
    if not np.array_equal(picture, photo):
        return picture, ''
    line = score_line(result, score_thr)
    return add_note(photo, line), line


def _paint(picture: np.ndarray, index: np.ndarray, regions: Sequence[Region], what: str) -> None:
    """Blend regions and their outlines, which lie inside them, into a picture, in place."""
    number = len(regions) + 1
    opacity = np.zeros((2 * number, 1), np.float32)  # rows: nothing, insides of regions, nothing, their outlines
    colour = np.zeros((2 * number, 3), np.float32)
    for i, region in enumerate(regions, start=1):
        opacity[[i, number + i], 0] = _CLASS if what == 'semantic' else _THING if region.is_thing else _STUFF
        colour[[i, number + i]] = region.colour
    kept, added = np.repeat(1 - opacity, 3, axis=1), opacity * colour + 0.5  # 0.5: rounds to the nearest
    width = line_width(*index.shape)
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    for rows in strips(*index.shape):
        start = max(0, rows.start - width)
        around = index[start:rows.stop + width]
        inner = slice(rows.start - start, rows.stop - start)
        outline = (cv2.dilate(around, square) != cv2.erode(around, square))[inner]
        part = around[inner].astype(np.int32) + number * outline
        blended = np.take(kept, part, axis=0, mode='clip')
        blended *= picture[rows]
        blended += np.take(added, part, axis=0, mode='clip')
        picture[rows] = blended


def _wanted(regions: Sequence[Region], classes: Sequence[str], size: int, what: str) -> list[Wanted]:
    """Return the labels of regions: first those of things, large ones first."""
    wanted = []
    for number, region in sorted(enumerate(regions, start=1), key=lambda item: (not item[1].is_thing, item[0])):
        name = ' '.join(str(classes[region.label]).split()) if 0 <= region.label < len(classes) else ''
        name = name if len(name) <= 28 else f'{name[:27]}…'
        if not name or not can_show(name):
            name = f'class {region.label}'
        texts = (name,) if region.score is None or not region.is_thing else (f'{name} {region.score:.2f}', name)
        loud = region.is_thing or what == 'semantic'
        wanted.append(Wanted(number, texts, size if loud else max(9, round(0.85 * size)), loud))
    return wanted


def add_note(picture: np.ndarray, text: str) -> np.ndarray:
    """Return a copy of a picture with a line of small text in its lower left corner."""
    picture = picture.copy()
    size = font_size(*picture.shape[:2])
    while size > 7 and text_size(text, size)[0] > picture.shape[1]:
        size -= 1
    write(picture, text, (0, max(0, picture.shape[0] - text_size(text, size)[1])), size, background=(40, 40, 40))
    return picture


def score_line(result: Result, score_thr: float) -> str:
    """Return how many objects are drawn: '3 of 20 above 0.30', or '0 of 20 above 0.30; best 0.27'.

    Objects are the instances, or else the things of the panoptic map; without both, the line counts classes.
    """
    if result.instances is None and result.panoptic is None:
        number = 0 if result.semantic is None else len(np.setdiff1d(result.semantic, VOID))
        return f'{number} {"class" if number == 1 else "classes"}'
    if result.instances is not None:
        scores = [instance.score for instance in result.instances]
    else:
        scores = [segment.score for segment in result.segments if segment.is_thing]
    known = [score for score in scores if score is not None]
    if not known:
        return f'{len(scores)} {"object" if len(scores) == 1 else "objects"}'
    above = sum(score >= score_thr for score in known)
    line = f'{above} of {len(known)} above {score_thr:.2f}'
    return line if above else f'{line}; best {max(known):.2f}'
