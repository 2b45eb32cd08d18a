import cv2
import numpy as np
import pytest
from picture_cases import CLASSES, cells, panoptic, photo

from knet_plugin.visualization import draw
from knet_plugin.visualization.labels import Label, Wanted, place_labels
from knet_plugin.visualization.text import can_show, text_size, write


def _overlap(first: Label, second: Label) -> bool:
    return all(first.box[i] < second.box[i] + second.box[i + 2] and second.box[i] < first.box[i] + first.box[i + 2]
               for i in (0, 1))


@pytest.mark.parametrize('size', [(400, 300), (640, 480), (300, 1200)])
@pytest.mark.parametrize('number', [5, 50])
def test_labels_are_inside_the_image_centred_in_their_regions_and_disjoint(size: tuple[int, int], number: int) -> None:
    index = cells(number, *size)
    wanted = [Wanted(i, (f'person {i / 100:.2f}', 'person'), 12, i % 2 == 0) for i in range(1, number + 1)]
    labels = place_labels(index, wanted)
    assert len(labels) >= 4
    for i, label in enumerate(labels):
        x, y, width, height = label.box
        assert x >= 0 and y >= 0 and x + width <= size[1] and y + height <= size[0]
        assert index[y + height // 2, x + width // 2] == label.number
        assert not any(_overlap(label, other) for other in labels[:i])


def test_a_quiet_label_lies_wholly_in_its_region_or_is_left_out() -> None:
    index = cells(30, 300, 400)
    labels = place_labels(index, [Wanted(i, ('building',), 12, False) for i in range(1, 31)])
    assert labels
    for label in labels:
        x, y, width, height = label.box
        part = index[y + 1:y + height - 1, x + 1:x + width - 1] == label.number
        assert part.mean() > 0.97


def test_the_widest_place_is_found() -> None:
    index = np.zeros((200, 400), np.uint16)
    index[20:180, 10:40] = 1  # tall and narrow
    index[140:165, 10:390] = 1  # low and wide: a text fits here only
    label, = place_labels(index, [Wanted(1, ('a long name of a class',), 12, False)])
    x, y, width, height = label.box
    assert (index[y:y + height, x:x + width] == 1).all()


def test_what_fits_is_written_and_what_does_not_fit_is_left_out() -> None:
    index = np.zeros((100, 300), np.uint16)
    width, height = text_size('person', 12)
    index[20:20 + height + 6, 20:20 + width + 8] = 1
    index[80:86, 80:86] = 2
    wanted = [Wanted(1, ('person 0.87 and more', 'person'), 12, True), Wanted(2, ('person',), 12, True)]
    label, = place_labels(index, wanted)
    assert label.text == 'person'


def test_labels_of_a_shrunk_map_are_inside_large_images() -> None:
    index = cv2.resize(cells(12, 100, 140), (4200, 3000), interpolation=cv2.INTER_NEAREST).astype(np.uint16)
    labels = place_labels(index, [Wanted(i, ('person 0.87',), 68, True) for i in range(1, 13)])
    assert len(labels) > 8
    for label in labels:
        x, y, width, height = label.box
        assert index[y + height // 2, x + width // 2] == label.number


@pytest.mark.parametrize('name', ['Fußgänger', 'πεζός', 'пешеход', '行人', '', ' \n', 'a\nb', 'x' * 300, '\U0001f6b6'])
def test_any_class_name_is_drawn(name: str) -> None:
    ids = np.ones((80, 200), np.int32)
    drawn = draw(photo(80, 200), panoptic(ids * 1), (CLASSES[0], name), 'panoptic')
    bare = draw(photo(80, 200), panoptic(ids * 1), (CLASSES[0], name), 'panoptic', with_labels=False)
    assert (drawn != bare).any()


def test_fonts_know_what_they_can_show() -> None:
    assert can_show('Fußgänger 0.87 …')
    assert not can_show('\U0010ffff')


def test_writing_beyond_the_border_is_cut() -> None:
    image = photo(20, 30)
    for corner in ((-10, -5), (25, 15), (100, 100), (-500, 0)):
        write(image, 'person', corner, 12, (0, 0, 0))
    assert image.shape == (20, 30, 3)


@pytest.mark.parametrize('value', [0, 128, 255])
def test_text_without_box_is_legible_on_any_background(value: int) -> None:
    image = np.full((40, 100, 3), value, np.uint8)
    write(image, 'sky', (10, 5), 14)
    assert image.min() < 60 and image.max() > 200
