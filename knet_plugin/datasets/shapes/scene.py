"""Random scenes of things on textured stuff.

Four of the six thing classes and all stuff classes form pairs that differ only in tint: warm or cool. Each image has
its own illumination, which shifts warm and cool colours alike, so tint can only be recognised by comparison with the
rest of the image. Every image has warm and cool stuff to compare with.
"""

import math
from dataclasses import asdict, dataclass

import cv2
import numpy as np

from knet_plugin.datasets.shapes.look import Canvas, render, stuff_look, thing_look

_SHAPE_AND_TINT = {
    'warm_disk': ('disk', 1), 'cool_disk': ('disk', -1), 'warm_square': ('square', 1), 'cool_square': ('square', -1),
    'ring': ('ring', None), 'star': ('star', None)
}
_TEXTURE_AND_TINT = {
    'warm_stripes': ('stripes', 1), 'cool_stripes': ('stripes', -1), 'warm_checks': ('checks', 1),
    'cool_checks': ('checks', -1)
}
THING_CLASSES = tuple(_SHAPE_AND_TINT)
STUFF_CLASSES = tuple(_TEXTURE_AND_TINT)
CLASSES = THING_CLASSES + STUFF_CLASSES
# RGB colours of CLASSES.
PALETTE = ((230, 80, 50), (60, 110, 230), (250, 150, 30), (70, 190, 220), (160, 70, 190), (110, 200, 60),
           (220, 190, 150), (150, 170, 210), (140, 90, 60), (60, 80, 120))
SEGMENTS_PER_CLASS = 1000  # the segment ids of category c, CLASSES[c - 1], start at c * SEGMENTS_PER_CLASS

_HUES = np.log(np.array(PALETTE) / 255)
_HUES -= _HUES.mean(axis=1, keepdims=True)  # the luminance is drawn for each region

_MAX_THINGS = 8
_MAX_THING_SIZE = 0.7  # diameter relative to the shorter side of the image
_MIN_VISIBLE_AREA = 10  # pixels; smaller segments are left unlabelled
_REGIONS = (2, 5)
_CROWD_PROBABILITY = 0.15
_CROWD_MEMBERS = (12, 40)
_CROWD_MEMBER_SIZE = (4.0, 7.0)  # pixels
_IGNORE_PROBABILITY = 0.3


@dataclass(frozen=True)
class Style:
    """Difficulty of the images of a data set.

    Attributes:
        ambiguity: Range of the illumination, relative to the distance between warm and cool colours. Above 1, the
            colour of an object alone tells warm from cool with probability (1 + 1 / ambiguity) / 2 only.
        hue: Weight of the colour that each class has of its own. At 0, colours only separate warm from cool; at 1, they
            identify the class.
        min_object: Diameter of the smallest objects in pixels. Members of crowds are always tiny.
    """

    ambiguity: float = 3.0
    hue: float = 0.0
    min_object: float = 6.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 <= value < math.inf or (name == 'min_object' and value == 0):
                raise ValueError(f'{name} must be finite and not negative (min_object: positive), got {value!r}')


@dataclass(frozen=True)
class Scene:
    """An image and its ground truth.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        segment_map: (H, W) int32, segment id of each pixel; 0 is unlabelled, ``id // SEGMENTS_PER_CLASS`` the category.
            Each object, each crowd and each stuff class is one segment.
        crowds: Segment ids of the crowds.
    """

    image: np.ndarray
    segment_map: np.ndarray
    crowds: frozenset[int]


@dataclass(frozen=True)
class _Item:
    """An object, a crowd (``members > 0``) or an unlabelled object (category 0) to draw on the stuff."""

    category: int
    centre: tuple[float, float]
    size: float
    members: int = 0


def draw_scene(rng: np.random.Generator, size: tuple[int, int], style: Style | None = None) -> Scene:
    """Draw a random scene of (height, width) ``size``, each at least 32.

    ``style.min_object`` must not exceed the largest objects, 0.7 of the shorter side.
    """
    style = style or Style()
    if style.min_object > _MAX_THING_SIZE * min(size):
        raise ValueError(f'min_object must be at most {_MAX_THING_SIZE * min(size):g} for images of size {size}, got '
                         f'{style.min_object!r}')
    # A smooth displacement of about 1 that bends straight lines.
    warp = cv2.resize(rng.standard_normal((5, 5, 2), dtype=np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
    canvas = _draw_stuff(rng, size, warp, style)
    crowds = set()
    for item in _choose_items(rng, size, style):
        segment = item.category * SEGMENTS_PER_CLASS + len(canvas.looks) if item.category else 0
        if item.members:
            crowds.add(segment)
            for centre in rng.normal(item.centre, item.size / 4, (item.members, 2)):
                member = _Item(item.category, tuple(centre), rng.uniform(*_CROWD_MEMBER_SIZE))
                _draw_thing(rng, canvas, member, segment, style)
        else:
            _draw_thing(rng, canvas, item, segment, style)
    segment_map = _annotate(canvas)
    image = render(rng, canvas, 2 * warp, style.ambiguity)
    return Scene(image, segment_map, frozenset(crowds.intersection(np.unique(segment_map).tolist())))


def _draw_stuff(rng: np.random.Generator, size: tuple[int, int], warp: np.ndarray, style: Style) -> Canvas:
    """Cover the image with bent Voronoi cells, at least one of them warm and one cool."""
    height, width = size
    count = int(rng.integers(_REGIONS[0], _REGIONS[1] + 1))
    names = rng.permuted(STUFF_CLASSES)
    tints = [_TEXTURE_AND_TINT[name][1] for name in names]
    first = [str(names[tints.index(1)]), str(names[tints.index(-1)])]
    chosen = first + [str(name) for name in rng.choice(STUFF_CLASSES, count - len(first))]

    seeds = (_spread_points(rng, count) * (width, height)).astype(np.float32)[:, :, None, None]  # (count, 2, 1, 1)
    x = np.arange(width, dtype=np.float32) + 0.12 * min(size) * warp[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + 0.12 * min(size) * warp[..., 1]
    squared_distance = (x - seeds[:, 0])**2 + (y - seeds[:, 1])**2  # (count, H, W)
    looks = [stuff_look(rng, *_TEXTURE_AND_TINT[name], style.hue * _HUES[CLASSES.index(name)]) for name in chosen]
    return Canvas(squared_distance.argmin(0).astype(np.uint8), looks,
                  [(CLASSES.index(name) + 1) * SEGMENTS_PER_CLASS for name in chosen])


def _spread_points(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw points in the unit square, (count, 2), each the most isolated of six candidates."""
    points = rng.random((1, 2))
    while len(points) < count:
        candidates = rng.random((6, 2))
        isolation = np.linalg.norm(candidates[:, None] - points, axis=-1).min(1)
        points = np.append(points, candidates[[isolation.argmax()]], axis=0)
    return points


def _choose_items(rng: np.random.Generator, size: tuple[int, int], style: Style) -> list[_Item]:
    """Choose objects and crowds, from far to near. Small ones tend to be near, so that they stay visible."""
    height, width = size
    short = min(size)

    def place() -> tuple[float, float]:
        return rng.uniform(0, width), rng.uniform(0, height)

    def category() -> int:
        return int(rng.integers(1, len(THING_CLASSES) + 1))

    smallest, largest = np.log(style.min_object), np.log(_MAX_THING_SIZE * short)
    items = [_Item(category(), place(), float(np.exp(rng.uniform(smallest, largest))))
             for _ in range(rng.integers(_MAX_THINGS + 1))]
    if rng.random() < _CROWD_PROBABILITY:
        members = int(rng.integers(*_CROWD_MEMBERS))
        items.append(_Item(category(), place(), rng.uniform(0.25, 0.45) * short, members))
    if rng.random() < _IGNORE_PROBABILITY:
        items.append(_Item(0, place(), rng.uniform(0.15, 0.5) * short))
    nearness = rng.normal(0.0, 0.6, len(items)) - np.log([item.size for item in items])
    return [items[i] for i in np.argsort(nearness)]


def _draw_thing(rng: np.random.Generator, canvas: Canvas, item: _Item, segment: int, style: Style) -> None:
    """Draw one object; an unlabelled one is a triangle, the shape of no class."""
    shape, tint = _SHAPE_AND_TINT[CLASSES[item.category - 1]] if item.category else ('triangle', None)
    hue = style.hue * _HUES[item.category - 1] if item.category else np.zeros(3)
    radius = item.size / 2
    angle = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    scale = (radius, radius * rng.uniform(0.8, 1.0))
    canvas.fill([outline * scale @ rotation + item.centre for outline in _OUTLINES[shape]],
                thing_look(rng, tint, hue, item.centre, radius), segment)


def _annotate(canvas: Canvas) -> np.ndarray:
    """Segment map, (H, W) int32, without segments that are hardly visible."""
    segments = np.array(canvas.segments, np.int32)
    areas = np.zeros(segments.max() + 1, np.int64)
    np.add.at(areas, segments, np.bincount(canvas.paint_map.ravel(), minlength=len(segments)))
    segments[areas[segments] < _MIN_VISIBLE_AREA] = 0
    return segments[canvas.paint_map]


def _polygon(corners: int, inner: float = 1.0) -> np.ndarray:
    """Polygon in the unit circle, (corners, 2); every other corner has the radius ``inner``."""
    angles = np.arange(corners) * 2 * np.pi / corners
    radii = np.where(np.arange(corners) % 2, inner, 1.0)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=-1)


_OUTLINES = {
    'disk': [_polygon(32)], 'square': [_polygon(4)], 'ring': [_polygon(32), 0.55 * _polygon(32)],
    'star': [_polygon(10, inner=0.42)], 'triangle': [_polygon(3)]
}
