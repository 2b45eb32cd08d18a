"""What the scenes contain, and that they are hard in the way they are meant to be."""

import cv2
import numpy as np
import pytest

from knet_plugin.datasets.shapes import CLASSES, PALETTE, STUFF_CLASSES, THING_CLASSES, Scene, Style, draw_scene
from knet_plugin.datasets.shapes.make import SEGMENTS_PER_CLASS, _choose_items

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


def warmth_of(scene: Scene) -> dict[int, float]:
    """How much more red than blue each segment is, by its median pixel, in logarithms."""
    pixels = np.log(np.maximum(scene.image, 1.0))
    return {s: float(np.median((pixels[..., 0] - pixels[..., 2])[scene.segment_map == s])) for s in segments_of(scene)}


def test_scene_has_the_promised_form(scenes):
    for scene in scenes:
        assert scene.image.shape == (*SIZE, 3) and scene.image.dtype == np.uint8
        assert scene.segment_map.shape == SIZE and scene.segment_map.dtype == np.int32
        assert (scene.segment_map // SEGMENTS_PER_CLASS).max() <= len(CLASSES)
        assert scene.crowds <= set(segments_of(scene))


def test_same_seed_same_scene_and_other_seed_other_scene(scenes):
    again = draw(3)
    assert np.array_equal(again.image, scenes[3].image) and np.array_equal(again.segment_map, scenes[3].segment_map)
    assert not np.array_equal(again.segment_map, scenes[4].segment_map)


def test_style_has_defaults(scenes):
    scene = draw_scene(np.random.default_rng(3), SIZE)
    assert np.array_equal(scene.image, scenes[3].image)
    assert Style() == Style(3.0, 0.0, 6.0)


@pytest.mark.parametrize('style', [{'ambiguity': 0.0}, {'hue': 1.0}])
def test_ambiguity_and_hue_change_colours_only(style, scenes):
    other = draw(3, **style)
    assert np.array_equal(other.segment_map, scenes[3].segment_map)
    assert not np.array_equal(other.image, scenes[3].image)


def test_hue_makes_the_colour_name_the_class():
    """The nearest class by the median log colour, up to luminance, is mostly right; without hue it mostly is not."""
    palette = np.log(np.array(PALETTE) / 255)
    palette -= palette.mean(axis=1, keepdims=True)
    for hue, low, high in ((0.0, 0, 0.5), (1.0, 0.85, 1)):
        right = []
        for seed in range(40):
            scene = draw(seed, ambiguity=0.0, hue=hue, min_object=20.0)
            logarithms = np.log(np.maximum(scene.image, 1) / 255.)
            for segment in np.unique(scene.segment_map[scene.segment_map > 0]):
                colour = np.median(logarithms[scene.segment_map == segment], axis=0)
                nearest = np.linalg.norm(palette - (colour - colour.mean()), axis=1).argmin()
                right.append(nearest == segment // SEGMENTS_PER_CLASS - 1)
        assert low <= np.mean(right) <= high


@pytest.mark.parametrize('smallest', [3.0, 20.0, LARGEST])
def test_objects_are_chosen_between_the_smallest_and_the_largest(smallest):
    chosen = [_choose_items(np.random.default_rng(seed), SIZE, Style(min_object=smallest)) for seed in range(150)]
    sizes = np.array([item.size for items in chosen for item in items if item.category and not item.members])
    slack = 1 + 1e-9  # the logarithm and back
    assert smallest / slack <= sizes.min() < 1.1 * smallest and 0.9 * LARGEST < sizes.max() <= LARGEST * slack

    usual = [_choose_items(np.random.default_rng(seed), SIZE, Style()) for seed in range(150)]
    others = [[item for items in each for item in items if item.members or not item.category]
              for each in (chosen, usual)]
    assert others[0] == others[1] and len(others[0]) > 0


def test_drawn_objects_are_as_large_as_the_smallest():
    """Seen by lone objects that the frame does not cut: nothing can hide a part of them."""
    spans: dict[float, list[int]] = {6.0: [], 20.0: []}
    for smallest, found in spans.items():
        for seed in range(200):
            scene = draw(seed, min_object=smallest)
            things = [s for s in segments_of(scene) if name_of(s) in THING_CLASSES]
            rows, columns = np.nonzero(scene.segment_map == things[0] if len(things) == 1 else [[]])
            if not scene.crowds and (scene.segment_map > 0).all() and len(rows) and min(rows.min(), columns.min()) > 0 \
                    and rows.max() < SIZE[0] - 1 and columns.max() < SIZE[1] - 1:
                found.append(max(np.ptp(rows), np.ptp(columns)) + 1)
    # A square on its side is lower than its diagonal, and all shapes may be squeezed.
    assert min(spans[6.0]) < 9 and min(spans[20.0]) >= 0.6 * 20


def test_smallest_objects_above_the_largest_are_refused():
    draw(0, min_object=LARGEST)
    with pytest.raises(ValueError, match=r'min_object .* largest diameter .* 67.5 > 67.2 \(0.7 of .* \(96, 112\)\)'):
        draw(0, min_object=67.5)


def test_stuff_of_a_class_is_one_segment(scenes):
    for scene in scenes:
        stuff = [name_of(segment) for segment in segments_of(scene) if name_of(segment) in STUFF_CLASSES]
        assert len(stuff) == len(set(stuff))


def test_all_classes_occur_and_none_is_rare(scenes):
    images_with = {name: sum(any(name_of(s) == name for s in segments_of(scene)) for scene in scenes)
                   for name in CLASSES}
    assert min(images_with.values()) > 0.2 * len(scenes), images_with


def test_number_of_things_varies_from_none(scenes):
    counts = [sum(name_of(s) in THING_CLASSES for s in segments_of(scene)) for scene in scenes]
    assert min(counts) == 0 and max(counts) >= 7


def test_things_are_of_very_different_size(scenes):
    masks = [scene.segment_map == s for scene in scenes for s in segments_of(scene)
             if name_of(s) in THING_CLASSES and s not in scene.crowds]
    areas = np.array([mask.sum() for mask in masks])
    spans = np.array([mask.any(0).sum() for mask in masks])
    assert areas.min() >= 10
    assert (spans < 9).mean() > 0.1 and (spans > 0.5 * SIZE[0]).any()
    assert 0.02 < (spans > 0.4 * SIZE[0]).mean() < 0.3


def test_crowds_and_unlabelled_regions_occur_but_not_everywhere(scenes):
    crowded = np.mean([len(scene.crowds) > 0 for scene in scenes])
    unlabelled = np.mean([(scene.segment_map == 0).sum() > 50 for scene in scenes])
    assert 0.05 < crowded < 0.3 and 0.1 < unlabelled < 0.5


def test_things_occlude_each_other(scenes):
    """Disks have no holes and no dents: a disk that does not fill its hull has something before it."""
    shares = []
    for scene in scenes:
        for segment in segments_of(scene):
            mask = (scene.segment_map == segment).astype(np.uint8)
            if name_of(segment).endswith('_disk') and segment not in scene.crowds and mask.sum() > 100:
                hull = cv2.convexHull(cv2.findNonZero(mask))
                filled = cv2.fillConvexPoly(np.zeros_like(mask), hull, 1)
                shares.append(mask.sum() / filled.sum())
    occluded = np.mean(np.array(shares) < 0.9)
    assert 0.1 < occluded < 0.8


@pytest.mark.parametrize(('ambiguity', 'expected'), [(2.0, 0.75), (4.0, 0.625)])
def test_tint_is_ambiguous_by_itself_and_clear_within_the_image(ambiguity, expected):
    """A threshold on the colour of a segment fails as often as predicted; one between the image's extremes does not."""
    alone, together = [], []
    for seed in range(120):
        scene = draw(seed, ambiguity=ambiguity)
        warmth = warmth_of(scene)
        middle = (min(warmth.values()) + max(warmth.values())) / 2
        for segment, value in warmth.items():
            tint = name_of(segment).split('_')[0]
            if tint in ('warm', 'cool'):
                alone.append((value > 0) == (tint == 'warm'))
                together.append((value > middle) == (tint == 'warm'))
    assert abs(np.mean(alone) - expected) < 0.08
    assert np.mean(together) > 0.98


def test_every_image_has_both_tints_to_compare(scenes):
    for scene in scenes:
        assert {name_of(s).split('_')[0] for s in segments_of(scene) if name_of(s) in STUFF_CLASSES} == {'warm', 'cool'}


def test_classes_have_colours():
    assert len(PALETTE) == len(set(PALETTE)) == len(CLASSES) == len(THING_CLASSES) + len(STUFF_CLASSES)
