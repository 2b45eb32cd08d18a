"""Shapes: random scenes of things on textured stuff, whose colours mean something only within their own image.

Classes. Four of the six thing classes and all of the stuff classes come in pairs that look alike but for their tint:
a warm disk reflects a little more red and less blue than a cool disk. Every image has its own illumination, one gain
per channel for all of its pixels, that moves warm and cool alike along that very axis. So the colour of a pixel
alone does not tell the two apart; only the comparison with the rest of the image does, and every image has warm and
cool stuff to compare with. Shape and texture, by contrast, can be told locally.

How hard this is, is up to a :class:`~knet_plugin.datasets.shapes.style.Style`, first of all to its ``ambiguity``: the
range of the illumination over the distance between the two tints. A method that sees the colour of one object but not
the rest of the image names the right half of a pair with probability 1 for ``ambiguity <= 1`` and
``(1 + 1 / ambiguity) / 2`` above (but for noise and jitter): 0.75 for 2, 0.67 for 3, 0.5 in the limit. One that
compares with the warmest and the coolest of the image is right nearly always.``hue`` gives every class a
colour of its own, and ``min_object`` keeps objects from being too small for coarse features. No ambiguity, hues and no
tiny objects make a clear variant: there a colour by itself names the class.

A scene is drawn back to front, like a painting: a map of paint numbers, and for each paint its look (colour,
shading, texture) and the segment that its pixels are annotated as. All annotation formats derive from the segment
map, so they agree to the pixel. :mod:`~knet_plugin.datasets.shapes.look` paints, lights and takes the picture.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from knet_plugin.datasets.shapes.look import Canvas, render, stuff_look, thing_look
from knet_plugin.datasets.shapes.style import Style

__all__ = [
    'CLASSES', 'GENERATOR_VERSION', 'PALETTE', 'SEGMENTS_PER_CLASS', 'STUFF_CLASSES', 'THING_CLASSES', 'Scene',
    'check_object_sizes', 'draw_scene'
]

GENERATOR_VERSION = 1
"""Raised whenever the same seed would give other pixels, so that a data set on disk is known by its manifest."""

_SHAPE_AND_TINT = {
    'warm_disk': ('disk', 1),
    'cool_disk': ('disk', -1),
    'warm_square': ('square', 1),
    'cool_square': ('square', -1),
    'ring': ('ring', None),
    'star': ('star', None),
}
_TEXTURE_AND_TINT = {
    'warm_stripes': ('stripes', 1),
    'cool_stripes': ('stripes', -1),
    'warm_checks': ('checks', 1),
    'cool_checks': ('checks', -1),
}

THING_CLASSES = tuple(_SHAPE_AND_TINT)
STUFF_CLASSES = tuple(_TEXTURE_AND_TINT)
CLASSES = THING_CLASSES + STUFF_CLASSES
"""Category ``i + 1`` is ``CLASSES[i]`` in every format; 0 is unlabelled."""

PALETTE = ((230, 80, 50), (60, 110, 230), (250, 150, 30), (70, 190, 220), (160, 70, 190), (110, 200, 60),
           (220, 190, 150), (150, 170, 210), (140, 90, 60), (60, 80, 120))
"""RGB colour of each of ``CLASSES``, for drawing results."""

# The same as log reflectances, (classes, 3), without the luminance, which is the paint's own.
_HUES = np.log(np.array(PALETTE) / 255)
_HUES -= _HUES.mean(axis=1, keepdims=True)

SEGMENTS_PER_CLASS = 1000
"""The segments of category ``c`` are numbered from ``c * SEGMENTS_PER_CLASS``: a number tells its category."""

# What is in a scene. Sizes are diameters.
_MAX_THINGS = 8
_MAX_THING_SIZE = 0.7  # of the shorter side of the image
_MIN_VISIBLE_AREA = 10  # pixels; what shows less is left unlabelled
_REGIONS = (2, 5)
_CROWD_PROBABILITY = 0.15
_CROWD_MEMBERS = (12, 40)
_CROWD_MEMBER_SIZE = (4.0, 7.0)  # pixels
_IGNORE_PROBABILITY = 0.3

_DEFAULT_STYLE = Style()


@dataclass(frozen=True)
class Scene:
    """One image and its ground truth.

    Attributes:
        image: Colours, (H, W, 3) uint8, RGB.
        segment_map: The segment of each pixel, (H, W) int32; 0 is unlabelled, and ``segment_map //
            SEGMENTS_PER_CLASS`` is the category (1-based index into ``CLASSES``, things first). Each object is a
            segment; all stuff of one class is one segment, and so is a crowd.
        crowds: Numbers of those segments that are crowds.
    """

    image: np.ndarray
    segment_map: np.ndarray
    crowds: frozenset[int]


@dataclass(frozen=True)
class _Item:
    """Something to be drawn on the stuff: an object, a crowd (``members > 0``) or, of category 0, a nameless object."""

    category: int
    centre: tuple[float, float]
    size: float
    members: int = 0


def check_object_sizes(style: Style, size: tuple[int, int]) -> None:
    """Check that the smallest objects are not larger than the largest ones in images of this (height, width).

    Raises:
        ValueError: They are.
    """
    largest = _MAX_THING_SIZE * min(size)
    if style.min_object > largest:
        raise ValueError(f'min_object must not be above the largest diameter of an object, got {style.min_object!r} > '
                         f'{largest:g} ({_MAX_THING_SIZE} of the shorter side of size {size})')


def draw_scene(rng: np.random.Generator, size: tuple[int, int], style: Style = _DEFAULT_STYLE) -> Scene:
    """Draw one random scene.

    Args:
        rng: Source of all randomness.
        size: Height and width in pixels, each at least 32.
        style: How difficult the scene is.

    Returns:
        The image with its ground truth.

    Raises:
        ValueError: The smallest objects of the style are larger than the largest of this image.
    """
    check_object_sizes(style, size)
    # Smooth and about 1 in size: scaled to pixels, a displacement that makes straight lines crooked.
    warp = cv2.resize(rng.standard_normal((5, 5, 2), dtype=np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
    canvas = _lay_out_stuff(rng, size, warp, style)
    crowds = set()
    for item in _choose_items(rng, size, style):
        # Numbers run over all segments of the image, not over those of one category: simplest that is unique.
        segment = item.category * SEGMENTS_PER_CLASS + len(canvas.looks) if item.category else 0
        if item.members:
            crowds.add(segment)
            _draw_crowd(rng, canvas, item, segment, style)
        else:
            _draw_thing(rng, canvas, item, segment, style)
    segment_map = _annotate(canvas)
    image = render(rng, canvas, 2 * warp, style)
    return Scene(image, segment_map, frozenset(crowds.intersection(np.unique(segment_map).tolist())))


def _lay_out_stuff(rng: np.random.Generator, size: tuple[int, int], warp: np.ndarray, style: Style) -> Canvas:
    """Cover the image with crooked Voronoi cells, at least one of them warm and one cool."""
    height, width = size
    short = min(size)
    count = int(rng.integers(_REGIONS[0], _REGIONS[1] + 1))
    names = rng.permuted(STUFF_CLASSES)
    tints = [_TEXTURE_AND_TINT[name][1] for name in names]
    first = [str(names[tints.index(1)]), str(names[tints.index(-1)])]
    chosen = first + [str(name) for name in rng.choice(STUFF_CLASSES, count - len(first))]

    seeds = (_spread_points(rng, count) * (width, height)).astype(np.float32)[:, :, None, None]  # (count, 2, 1, 1)
    x = np.arange(width, dtype=np.float32) + 0.12 * short * warp[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + 0.12 * short * warp[..., 1]
    squared_distance = (x - seeds[:, 0])**2 + (y - seeds[:, 1])**2  # (count, H, W)
    paint_map = squared_distance.argmin(0).astype(np.uint8)
    looks = [stuff_look(rng, *_TEXTURE_AND_TINT[name], style.hue * _HUES[CLASSES.index(name)]) for name in chosen]
    return Canvas(paint_map, looks, [(CLASSES.index(name) + 1) * SEGMENTS_PER_CLASS for name in chosen])


def _spread_points(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random points in the unit square, (count, 2), each the loneliest of a few candidates, so that cells are big."""
    points = rng.random((1, 2))
    while len(points) < count:
        candidates = rng.random((6, 2))
        loneliness = np.linalg.norm(candidates[:, None] - points, axis=-1).min(1)
        points = np.append(points, candidates[[loneliness.argmax()]], axis=0)
    return points


def _choose_items(rng: np.random.Generator, size: tuple[int, int], style: Style) -> list[_Item]:
    """Choose what to draw on the stuff, far to near; small items are mostly near, so they are not all hidden."""
    height, width = size
    short = min(size)

    def somewhere() -> tuple[float, float]:
        return rng.uniform(0, width), rng.uniform(0, height)

    def thing() -> int:
        return int(rng.integers(1, len(THING_CLASSES) + 1))

    items = [_Item(thing(), somewhere(), _log_uniform(rng, style.min_object, _MAX_THING_SIZE * short))
             for _ in range(rng.integers(_MAX_THINGS + 1))]
    if rng.random() < _CROWD_PROBABILITY:
        members = int(rng.integers(*_CROWD_MEMBERS))
        items.append(_Item(thing(), somewhere(), rng.uniform(0.25, 0.45) * short, members))
    if rng.random() < _IGNORE_PROBABILITY:
        items.append(_Item(0, somewhere(), rng.uniform(0.15, 0.5) * short))
    nearness = rng.normal(0.0, 0.6, len(items)) - np.log([item.size for item in items])
    return [items[i] for i in np.argsort(nearness)]


def _draw_thing(rng: np.random.Generator, canvas: Canvas, item: _Item, segment: int, style: Style) -> None:
    """Draw one object; a nameless one is a triangle, a shape that no class has."""
    shape, tint = _SHAPE_AND_TINT[CLASSES[item.category - 1]] if item.category else ('triangle', None)
    hue = style.hue * _HUES[item.category - 1] if item.category else np.zeros(3)
    radius = item.size / 2
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    stretch = (radius, radius * rng.uniform(0.8, 1.0))
    canvas.fill([outline * stretch @ turn + item.centre for outline in _OUTLINES[shape]],
                thing_look(rng, tint, hue, item.centre, radius), segment)


def _draw_crowd(rng: np.random.Generator, canvas: Canvas, item: _Item, segment: int, style: Style) -> None:
    """Draw a heap of tiny objects of one class as one segment."""
    for centre in rng.normal(item.centre, item.size / 4, (item.members, 2)):
        member = _Item(item.category, tuple(centre), rng.uniform(*_CROWD_MEMBER_SIZE))
        _draw_thing(rng, canvas, member, segment, style)


def _annotate(canvas: Canvas) -> np.ndarray:
    """Segment map, (H, W) int32, without the segments of which hardly anything shows."""
    segments = np.array(canvas.segments, np.int32)
    areas = np.zeros(segments.max() + 1, np.int64)
    np.add.at(areas, segments, np.bincount(canvas.paint_map.ravel(), minlength=len(segments)))
    segments[areas[segments] < _MIN_VISIBLE_AREA] = 0
    return segments[canvas.paint_map]


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _spikes(count: int, inner: float = 1.0) -> np.ndarray:
    """Polygon within the unit circle, (count, 2), every other corner drawn in to the radius ``inner``."""
    angles = np.arange(count) * 2 * np.pi / count
    radii = np.where(np.arange(count) % 2, inner, 1.0)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=-1)


_OUTLINES = {
    'disk': [_spikes(32)],
    'square': [_spikes(4)],
    'ring': [_spikes(32), 0.55 * _spikes(32)],
    'star': [_spikes(10, inner=0.42)],
    'triangle': [_spikes(3)],
}
