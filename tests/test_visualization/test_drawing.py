import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from picture_cases import CLASSES, cells, instance, instances, panoptic, photo
from pycocotools import mask as coco_mask

from knet_plugin.visualization import VOID, Instance, Result, Segment, draw, draw_or_note, score_line


def test_void_keeps_the_photo_and_every_pixel_of_a_segment_changes() -> None:
    ids = cells(12, 90, 120)
    ids[30:50] = 0
    image = photo(90, 120)
    changed = (draw(image, panoptic(ids), CLASSES, with_labels=False) != image).any(axis=2)
    assert not changed[ids == 0].any()
    assert changed[ids > 0].all()


def test_photo_stays_visible() -> None:
    image = photo(64, 64)
    for result, what in ((panoptic(cells(1, 64, 64)), 'panoptic'),
                         (Result((64, 64), semantic=np.zeros((64, 64), np.uint8)), 'semantic')):
        drawn = draw(image, result, CLASSES, what, with_labels=False)[8:-8, 8:-8]
        correlation = np.corrcoef(drawn[..., 1].ravel(), image[8:-8, 8:-8, 1].ravel())[0, 1]
        assert correlation > 0.99
        assert drawn.std() > 0.5 * image.std()


def test_things_are_tinted_more_than_stuff() -> None:
    image = photo(40, 80)
    ids = np.ones((40, 80), np.int32)
    segments = [Segment(1, 0, True), Segment(1, 0, False)]
    thing, stuff = (draw(image, Result((40, 80), panoptic=ids, segments=[segment]), CLASSES, with_labels=False)
                    for segment in segments)
    assert np.abs(thing.astype(int) - image).mean() > 1.3 * np.abs(stuff.astype(int) - image).mean()


@pytest.mark.parametrize('what', ['panoptic', 'instances'])
def test_order_of_segments_does_not_matter(what: str) -> None:
    ids = cells(20, 100, 140)
    result = panoptic(ids, 0.8) if what == 'panoptic' else instances(ids)
    part = 'segments' if what == 'panoptic' else 'instances'
    reverse = replace(result, **{part: getattr(result, part)[::-1]})
    image = photo(100, 140)
    np.testing.assert_array_equal(draw(image, result, CLASSES, what), draw(image, reverse, CLASSES, what))


def test_instances_look_like_the_same_things_of_a_panoptic_map() -> None:
    ids = cells(9, 100, 140)
    things = Result(ids.shape, panoptic=ids, segments=[Segment(i, i % 2, True, 0.9) for i in range(1, 10)])
    image = photo(100, 140)
    np.testing.assert_array_equal(draw(image, things, CLASSES), draw(image, instances(ids), CLASSES, 'instances'))


def test_small_object_on_a_large_one_is_visible() -> None:
    large, small = np.zeros((2, 60, 60), np.uint8)
    large[5:55, 5:55], small[20:30, 20:30] = 1, 1
    result = Result((60, 60), instances=[instance(small, 0, 0.4), instance(large, 1, 0.9)])
    drawn = draw(photo(60, 60), result, CLASSES, 'instances', with_labels=False)
    alone = draw(photo(60, 60), replace(result, instances=result.instances[1:]), CLASSES, 'instances', None, 0.3, False)
    differs = (drawn != alone).any(axis=2)
    assert differs[20:30, 20:30].mean() > 0.9


@pytest.mark.parametrize('result, what', [
    (Result((20, 30), panoptic=np.zeros((20, 30), np.int32)), 'panoptic'),
    (Result((20, 30), panoptic=np.full((20, 30), 7, np.int32)), 'panoptic'),  # no such segment
    (Result((20, 30), panoptic=np.zeros((20, 30), np.int32), segments=[Segment(1, 0, True, 0.9)]), 'panoptic'),
    (Result((20, 30), instances=[]), 'instances'),
    (Result((20, 30), instances=[instance(np.zeros((20, 30)))]), 'instances'),
    (Result((20, 30), instances=[instance(np.ones((20, 30)), score=0.29)]), 'instances'),
    (Result((20, 30), semantic=np.full((20, 30), VOID, np.uint8)), 'semantic'),
])
def test_empty_result_is_the_plain_photo_and_says_why(result: Result, what: str) -> None:
    image = photo(20, 30)
    np.testing.assert_array_equal(draw(image, result, CLASSES, what), image)
    noted, line = draw_or_note(image, result, CLASSES, what)
    assert line
    assert noted.shape == image.shape
    assert (noted != image).any()


def test_score_threshold_holds_for_things_and_not_for_what_has_no_score() -> None:
    ids = cells(8, 60, 60)
    image = photo(60, 60)
    changed = (draw(image, panoptic(ids, 0.5), CLASSES, score_thr=0.6, with_labels=False) != image).any(axis=2)
    np.testing.assert_array_equal(changed, ids % 4 >= 2)
    assert (draw(image, panoptic(ids), CLASSES, score_thr=0.6, with_labels=False) != image).any(axis=2).all()


@pytest.mark.parametrize('size', [(1, 1), (1, 50), (50, 1), (2, 3), (200, 150), (1, 5000), (5000, 2)])
def test_any_size(size: tuple[int, int]) -> None:
    ids = np.ones(size, np.int32)
    for result, what in ((panoptic(ids, 0.9), 'panoptic'), (instances(ids), 'instances'),
                         (Result(size, semantic=ids), 'semantic')):
        assert draw(photo(*size), result, CLASSES, what).shape == (*size, 3)


@pytest.mark.parametrize('label', [4, 4000, 254])
def test_labels_without_a_name(label: int) -> None:
    ids = np.ones((40, 60), np.int32)
    for result, what in ((Result((40, 60), panoptic=ids, segments=[Segment(1, label, True)]), 'panoptic'),
                         (Result((40, 60), instances=[instance(ids, label)]), 'instances'),
                         (Result((40, 60), semantic=ids * label), 'semantic')):
        assert (draw(photo(40, 60), result, CLASSES, what) != photo(40, 60)).any()


def test_ids_of_coco_panoptic_maps() -> None:
    ids = cells(6, 50, 50)
    far = (ids.astype(np.int64) * 2_700_000).astype(np.int32)
    segments = [Segment(i * 2_700_000, i % 4, i % 4 < 2) for i in range(1, 7)]
    np.testing.assert_array_equal(draw(photo(50, 50), panoptic(ids), CLASSES),
                                  draw(photo(50, 50), Result((50, 50), far, segments), CLASSES))


def test_wrong_arguments_name_what_is_wrong() -> None:
    result = Result((20, 30), instances=[])
    with pytest.raises(ValueError, match=r'panoptic.*instances'):
        draw(photo(20, 30), result, CLASSES, 'panoptic')
    with pytest.raises(ValueError, match='boxes'):
        draw(photo(20, 30), result, CLASSES, 'boxes')
    with pytest.raises(ValueError, match=r'label 3.*5, 6.*20, 30'):
        draw(photo(20, 30), Result((20, 30), instances=[instance(np.ones((5, 6)), 3)]), CLASSES, 'instances')
    with pytest.raises(ValueError, match=r'30 x 20.*20 x 30'):
        draw(photo(30, 20), result, CLASSES, 'instances')


def test_score_line() -> None:
    ids = cells(4, 20, 20)
    assert score_line(instances(ids, 0.27), 0.3) == '0 of 4 above 0.30; best 0.27'
    assert score_line(instances(ids, 0.3), 0.3) == '4 of 4 above 0.30'
    assert score_line(panoptic(ids, 0.27), 0.3) == '0 of 2 above 0.30; best 0.27'
    assert score_line(instances(ids, None), 0.3) == '4 objects'
    assert score_line(Result((20, 20), semantic=ids), 0.3) == '4 classes'
    assert score_line(Result((20, 20), instances=[]), 0.3) == '0 objects'


def test_memory_of_a_large_picture_is_bounded() -> None:
    """The most is the photo, the picture, one decoded mask and the map; not a mask for each of 50 objects."""
    side = 2000
    boxes = np.array([[column * 200, row * 400, 175, 350] for row in range(5) for column in range(10)], float)
    found = [Instance(number % 4, 0.9, (0, 0, 0, 0), mask)
             for number, mask in enumerate(coco_mask.frPyObjects(boxes, side, side))]
    image = np.full((side, side, 3), 100, np.uint8)
    tracemalloc.start()
    drawn = draw(image, Result((side, side), instances=found), CLASSES, 'instances')
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * side * side  # bytes: 3 of the picture, 4 of maps, 1 of a mask, and strips
    assert (drawn != 100).any(axis=2).mean() > 0.7
