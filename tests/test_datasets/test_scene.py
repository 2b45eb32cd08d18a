"""Content of the scenes, and how far colour alone identifies a class."""

import numpy as np
import pytest

from knet_plugin.datasets.shapes import CLASSES, STUFF_CLASSES, Scene, Style, draw_scene
from knet_plugin.datasets.shapes.scene import SEGMENTS_PER_CLASS

SIZE = (96, 112)
LARGEST = 0.7 * 96


def draw(seed: int, **style: float) -> Scene:
    return draw_scene(np.random.default_rng(seed), SIZE, Style(**style))


@pytest.fixture(scope='module')
def scenes() -> list[Scene]:
    return [draw(seed) for seed in range(150)]


def segments_of(scene: Scene) -> list[int]:
    return [segment for segment in np.unique(scene.segment_map).tolist() if segment]


def name_of(segment: int) -> str:
    return CLASSES[segment // SEGMENTS_PER_CLASS - 1]


@pytest.mark.parametrize(('seed', 'style', 'areas', 'colour'), [
    (0, Style(), {1008: 1664, 4009: 76, 5005: 369, 5007: 134, 6006: 572, 6010: 28, 7000: 2698, 8000: 2345, 10000: 2866},
     (138.07, 124.73, 107.18)),
    (7, Style(ambiguity=0.0, hue=1.0, min_object=20.0),
     {3006: 356, 3009: 352, 3011: 311, 4007: 482, 5005: 250, 5008: 364, 6010: 141, 8000: 3108, 9000: 2835, 10000: 2553},
     (97.60, 81.84, 87.39)),
])
def test_images_are_those_of_the_published_figures(seed, style, areas, colour):
    """Up to rounding, which differs between processors."""
    scene = draw_scene(np.random.default_rng(seed), SIZE, style)
    segments, counts = np.unique(scene.segment_map, return_counts=True)
    assert segments.tolist() == list(areas)
    assert counts == pytest.approx(list(areas.values()), abs=3)
    assert scene.image.mean((0, 1)) == pytest.approx(colour, abs=0.05)


def test_form(scenes):
    for scene in scenes:
        assert scene.image.shape == (*SIZE, 3) and scene.image.dtype == np.uint8
        assert scene.segment_map.shape == SIZE and scene.segment_map.dtype == np.int32
        assert (scene.segment_map // SEGMENTS_PER_CLASS).max() <= len(CLASSES)
        assert scene.crowds <= set(segments_of(scene))
        stuff = [name_of(segment) for segment in segments_of(scene) if name_of(segment) in STUFF_CLASSES]
        assert len(stuff) == len(set(stuff))  # one segment per class
        assert {name.split('_')[0] for name in stuff} == {'warm', 'cool'}


def test_style_changes_colours_only(scenes):
    for style in ({'ambiguity': 0.0}, {'hue': 1.0}):
        other = draw(3, **style)
        assert np.array_equal(other.segment_map, scenes[3].segment_map)
        assert not np.array_equal(other.image, scenes[3].image)


def test_smallest_objects_above_the_largest_are_refused():
    draw(0, min_object=LARGEST)
    with pytest.raises(ValueError, match='min_object .*67.2.*67.5'):
        draw(0, min_object=67.5)
