"""Images and masks that decoders treat in their own ways."""

import cv2
import numpy as np
import own_data
import pytest
from PIL import Image, ImageOps


def test_photo_that_exif_turns(run, images, pictures, masks, tmp_path):
    path = images / 'photo0.jpg'
    pixels = np.asarray(Image.open(path))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    Image.fromarray(np.rot90(pixels).copy()).save(path, exif=exif)
    assert cv2.imread(str(path)).shape[:2] == pictures[0].size  # as the hosts read it
    assert sum(run(masks, 'pet').images.values()) == len(pictures)


@pytest.mark.parametrize('orientation', [5, 6, 7, 8])
def test_mask_of_a_photo_that_exif_turns(run, images, pictures, masks, tmp_path, orientation):
    path = images / 'photo0.jpg'
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new('RGB', pictures[0].size).save(path, exif=exif)  # PIL names the width first
    turned = next(turned for k in range(4) for turned in (np.rot90(pictures[0].ids(), k), np.rot90(
        pictures[0].ids(), k).T) if np.array_equal(turn_as_exif(turned, exif), pictures[0].ids()))
    own_data.write_png(masks / 'photo0.png', np.ascontiguousarray(turned))
    assert 'annotation turned as EXIF data turn its photo (1 times)' in run(masks, 'pet').notes
    found = next(objects for split in ('train', 'val') for name, objects in own_data.read_instances(
        tmp_path / 'out', split).items() if name == 'photo0.jpg')
    assert own_data.as_set(found) == {('pet', mask.tobytes()) for _, mask in pictures[0].masks()}


@pytest.mark.parametrize(('orientation', 'square'), [(2, False), (3, False), (4, False), (6, True), (1, True)])
def test_photo_that_exif_turns_to_the_same_size(run, images, masks, orientation, square):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new('RGB', (40, 40) if square else (60, 40)).save(images / 'photo0.jpg', exif=exif)
    if square:
        own_data.write_png(masks / 'photo0.png', np.eye(40, dtype=np.uint8))
    notes = str(run(masks, 'pet').notes)
    assert ('1 photos' in notes and ': photo0.jpg' in notes) == (orientation > 1)


def turn_as_exif(mask, exif):
    image = Image.fromarray(np.ascontiguousarray(mask))
    image.getexif()[0x0112] = exif[0x0112]
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize('scale', [1, 257])
def test_colours_of_sixteen_bits(run, pictures, tmp_path, scale):
    for picture in pictures:
        values = picture.ids().astype(np.uint16) * scale
        path = tmp_path / f'masks/{picture.stem}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.stack([values, 0 * values, 2 * values], axis=-1))
    prepared = run(tmp_path / 'masks', 'pet')
    assert sum(counts['pet'] for counts in prepared.counts.values()) == 4 * len(pictures)


def test_colours_of_sixteen_bits_that_need_them(run, pictures, masks):
    values = pictures[0].ids().astype(np.uint16) * 1000
    cv2.imwrite(str(masks / 'photo0.png'), np.stack([values, 0 * values, 2 * values], axis=-1))
    with pytest.raises(ValueError, match='photo0.png.* 16 bits'):
        run(masks, 'pet')


@pytest.mark.parametrize('kind', ['cut out', 'one colour', 'grey', 'transparent background'])
def test_masks_in_the_alpha_channel(run, pictures, tmp_path, kind):
    for picture in pictures:
        mask = picture.ids() > 0
        pixels = np.random.default_rng(0).integers(0, 255, (*picture.size, 4), dtype=np.uint8)
        if kind != 'cut out':
            pixels[..., :3] = np.where(mask, 200, 100)[..., None] if kind == 'transparent background' else 9
        pixels[..., 3] = mask * 255
        own_data.write_png(tmp_path / f'masks/{picture.stem}.png', pixels[..., 2:] if kind == 'grey' else pixels)
    run(tmp_path / 'masks', 'pet', stuff=('floor',))
    for picture in pictures:
        for split in ('train', 'val'):
            if (tmp_path / 'out/images' / split / picture.name).exists():
                labels = own_data.read_labels(tmp_path / 'out', split, picture.name)
                assert np.array_equal(labels == 0, picture.ids() > 0)


def test_jfif(run, images, masks):
    for path in images.rglob('*.jpg'):
        path.rename(path.with_suffix('.JFIF'))
    assert sum(run(masks, 'pet').images.values()) == 5


def test_large_scan(run, images, masks, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)  # PIL's own limit is 89 million
    run(masks, 'pet')
    assert Image.MAX_IMAGE_PIXELS == 100
