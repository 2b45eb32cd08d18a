import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_cases import cells

from knet_plugin.visualization import Result, Segment, palette
from knet_plugin.visualization.colours import NEAR, class_colours, difference, shades, text_colour
from knet_plugin.visualization.regions import region_map


def _least_difference(colours: list) -> float:
    return min(difference(one, other) for i, one in enumerate(colours) for other in colours[:i])


def test_palette_is_distinct_and_a_longer_one_starts_like_a_shorter() -> None:
    colours = palette(150)
    assert palette(5) == colours[:5]
    assert palette(0) == []
    assert _least_difference(colours[:20]) > NEAR
    assert len(set(colours)) == 150
    assert _least_difference(colours) > 8


@pytest.mark.parametrize('colour', [(0, 0, 0), (255, 255, 255), (128, 128, 128), (0, 0, 142), (255, 0, 0)])
def test_shades_of_any_colour_are_distinct(colour: tuple[int, int, int]) -> None:
    options = shades(colour)
    assert options[0] == colour
    assert _least_difference(options) > NEAR


@pytest.mark.parametrize('given_palette', [
    None, 'random', 'coco', [], [(1, 2, 3)], [[1, 2, 3]] * 9, [(1, 2, 3), 'red', None], np.full((4, 3), 7),
    [(300, -1, 2.5)] * 4])
def test_any_palette_of_a_config_gives_a_colour_for_each_class(given_palette: object) -> None:
    colours = class_colours(given_palette, 4)
    assert len(colours) == 4
    assert all(0 <= value <= 255 for colour in colours for value in colour)


def test_given_colours_are_taken() -> None:
    assert class_colours([(1, 2, 3)], 2) == [(1, 2, 3), palette(2)[1]]


def test_text_is_readable_on_every_colour_of_the_palette() -> None:
    def luminance(colour: tuple[int, int, int]) -> float:
        return float((np.array(colour) / 255) ** 2.2 @ (0.2126, 0.7152, 0.0722)) + 0.05

    for colour in palette(100):
        dark, light = sorted((luminance(colour), luminance(text_colour(colour))))
        assert light / dark > 4.5  # WCAG, level AA


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10 ** 6), st.integers(2, 60), st.sampled_from([1, 3]))
def test_neighbouring_objects_differ(seed: int, number: int, num_classes: int) -> None:
    ids = cells(number, 120, 160, seed)
    result = Result(ids.shape, ids, [Segment(i, i % num_classes, True) for i in range(1, number + 1)])
    index, regions = region_map(result, 'panoptic', palette(num_classes), 0.3)
    for first, second in ((index[:, 1:], index[:, :-1]), (index[1:], index[:-1])):
        for one, other in np.unique(np.stack([first[first != second], second[first != second]]), axis=1).T.tolist():
            assert difference(regions[one - 1].colour, regions[other - 1].colour) > NEAR


def test_objects_apart_by_a_thin_gap_differ() -> None:
    ids = np.ones((100, 100), np.int32)
    ids[:, 50:] = 2
    ids[:, 49:51] = 0
    _, regions = region_map(Result((100, 100), ids, [Segment(1, 0, True), Segment(2, 0, True), ]), 'panoptic',
                            palette(3), 0.3)
    assert difference(regions[0].colour, regions[1].colour) > NEAR


def test_stuff_and_lone_objects_have_the_colour_of_their_class() -> None:
    ids = np.ones((100, 100), np.int32)
    ids[:40] = 2
    _, regions = region_map(Result((100, 100), ids, [Segment(1, 2, False), Segment(2, 1, True)]), 'panoptic',
                            palette(3), 0.3)
    assert [region.colour for region in regions] == [palette(3)[2], palette(3)[1]]
