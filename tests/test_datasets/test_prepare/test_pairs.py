"""Masks find their images by name."""

from pathlib import PurePosixPath

import pytest

from knet_plugin.datasets.prepare.pairs import pair
from knet_plugin.datasets.prepare.sample import Reading


@pytest.mark.parametrize(('image', 'mask'), [
    ('FudanPed00001.png', 'FudanPed00001_mask.png'),
    ('a.jpg', 'a.png'),
    ('a.b.jpeg', 'a.b.png'),
    ('img_001.jpg', 'mask_001.png'),
    ('001_image.jpg', '001-labels.png'),
    ('x/a.jpg', 'x/a_mask.png'),
    ('x/a.jpg', 'a_mask.png'),
    ('a.jpg', 'x/a.png'),
    ('0001TP_006690.png', '0001TP_006690_L.png'),
    ('aachen_000_019_leftImg8bit.png', 'aachen_000_019_gtFine_labelIds.png'),
    ('a.jpg', 'a_1.png'),
    ('a.jpg', 'a/7.png'),
    ('x/a.jpg', 'x/a/7.png'),
    ('mask.jpg', 'mask.png'),
    ('\xe4.jpg', 'a\u0308.png'),
    ('x\xe4/\xe4.jpg', 'xa\u0308/a\u0308_mask.png'),
    ('\xe4.jpg', 'a\u0308/1.png'),
    ('P0.JPG', 'p0.png'),
    ('P0.JPG', 'p0_mask.png')])
def test_pair(image, mask):
    image, mask = PurePosixPath(image), PurePosixPath(mask)
    pairs = pair([image], [mask])
    assert pairs.masks == {image: [mask]}
    assert not pairs.images_alone and not pairs.masks_alone


def test_the_longest_name_wins():
    images = [PurePosixPath(f'{name}.jpg') for name in ('a', 'a_1', 'a_10')]
    masks = [PurePosixPath(f'{name}.png') for name in ('a_mask', 'a_1_mask', 'a_10_mask', 'a_1_2')]
    pairs = pair(images, masks)
    assert pairs.masks == {images[0]: [masks[0]], images[1]: [masks[1], masks[3]], images[2]: [masks[2]]}
    assert pairs.several


def test_same_names_in_folders():
    images = [PurePosixPath(f'{folder}/a.jpg') for folder in 'xy']
    masks = [PurePosixPath(f'{folder}/a.png') for folder in 'xy']
    assert pair(images, masks).masks == {images[0]: [masks[0]], images[1]: [masks[1]]}
    with pytest.raises(ValueError, match='x/a.jpg and y/a.jpg'):
        pair(images, [PurePosixPath('a.png')])


def test_what_is_alone_is_named():
    images = [PurePosixPath(f'{name}.jpg') for name in 'abcdefg']
    pairs = pair(images, [PurePosixPath('a.png'), PurePosixPath('z.png')])
    assert pairs.images_alone == images[1:]
    reading = Reading([])
    pairs.note(reading, '')
    first, second = reading.notes
    assert '6 of 7' in first and 'b.jpg' in first
    assert 'z.png' in second


def test_case_that_tells_images_apart():
    images = [PurePosixPath(name) for name in ('A.jpg', 'a.jpg')]
    masks = [PurePosixPath(name) for name in ('A.png', 'a.png')]
    assert pair(images, masks).masks == {images[0]: [masks[0]], images[1]: [masks[1]]}
    assert pair([PurePosixPath('AB.jpg'), PurePosixPath('Ab.jpg')], [PurePosixPath('ab.png')]).masks == {}


def test_two_images_of_one_name():
    with pytest.raises(ValueError, match='a.jpg and a.png'):
        pair([PurePosixPath('a.jpg'), PurePosixPath('a.png')], [PurePosixPath('a_mask.png')])
