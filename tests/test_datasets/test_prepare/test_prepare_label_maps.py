"""Which class a value of a label map is."""

import numpy as np
import own_data
import pytest
from PIL import Image


@pytest.fixture
def write_maps(pictures, tmp_path):
    """Write maps with these values (or colours) in equal columns, and return their folder."""

    def write(values, dtype=np.uint8, mode=None):
        values = np.array(values, dtype)
        for picture in pictures:
            columns = np.arange(picture.size[1]) * len(values) // picture.size[1]
            pixels = values[np.broadcast_to(columns, picture.size)]
            path = tmp_path / f'maps/{picture.stem}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(pixels)
            if mode == 'P':
                image.putpalette([128, 0, 0, 0, 128, 0, 7, 7, 7])
            image.save(path)
        return tmp_path / 'maps'

    return write


def found_labels(tmp_path):
    path = next((tmp_path / 'out/labels/train').rglob('*.png'))
    return np.asarray(Image.open(path))[0]


def sampled(row, number):
    """One label of each column."""
    return row[(np.arange(number) * 2 + 1) * len(row) // (2 * number)].tolist()


@pytest.mark.parametrize(('values', 'classes', 'ignore', 'labels'), [
    ([0, 1, 2, 255], 'a b c', [255], [0, 1, 2, 255]),
    ([0, 2], 'a b c', [255], [0, 2]),  # b is not in these images
    ([0, 255], 'a b', [255], [0, 1]),
    ([0, 100, 200], 'a b c', [255], [0, 1, 2]),
    ([10, 20, 255], 'a b', [255], [0, 1, 255]),
    ([0, 1, 2, 3], 'a b c', [0], [255, 0, 1, 2]),
    ([0, 3], 'a b c', [0], [255, 2]),
    ([0, 1, 2], 'b=2 a=0', [255], [1, 255, 0]),
    ([0, 255], 'a=0 b=255', [255], [0, 1])])
def test_values(run, write_maps, tmp_path, values, classes, ignore, labels):
    prepared = run(write_maps(values), *classes.split(), ignore=ignore, format='label-maps')
    assert sampled(found_labels(tmp_path), len(values)) == labels
    assert prepared.description.classes == tuple(name[0] for name in classes.split())
    absent = [name for label, name in enumerate(prepared.description.classes) if label not in labels]
    assert [note for note in prepared.notes if 'no image in train' in note] == (
        [f'no image in train has {", ".join(absent)}'] if absent else [])


@pytest.mark.parametrize('values', [[0, 255], [0, 7, 9]])
def test_mapping_is_said(run, write_maps, values):
    prepared = run(write_maps(values), *'abc'[:len(values)])
    assert any(f'{values[-1]} is' in note for note in prepared.notes)


@pytest.mark.parametrize(('values', 'classes', 'stuff', 'labels'), [
    ([0, 255], 'a', 'z', [1, 0]),
    ([0, 255], 'a', '', [255, 0]),
    ([0, 1], 'a', 'z', [1, 0]),
    ([0, 1, 255], 'a', 'z', [1, 0, 255]),
    ([7], 'a', 'z', [0]),
    ([0, 1, 2], 'a b', 'z', [2, 0, 1]),
    ([(0, 0, 0), (0, 0, 255)], 'a', 'z', [1, 0])])
def test_background_beside_classes(run, write_maps, tmp_path, values, classes, stuff, labels):
    prepared = run(write_maps(values), *classes.split(), stuff=tuple(stuff), format='label-maps')
    assert sampled(found_labels(tmp_path), len(values)) == labels
    notes = '\n'.join(prepared.notes)
    assert ' is a' in notes and ('value 0 is no class' in notes) == (not stuff)


def test_default_order_is_said(run, write_maps):
    assert 'values of the label maps: 0 is a, 1 is b' in run(write_maps([0, 1]), 'a', 'b').notes


def test_ignored_values_are_said(run, write_maps):
    prepared = run(write_maps([0, 1, 2]), 'b=2', 'a=0')
    assert any('values 1 ' in note for note in prepared.notes)


@pytest.mark.parametrize(('values', 'classes', 'named'), [
    ([0, 1, 2], 'a b', '2 names.*0, 1, 2'),
    ([0, 50, 60], 'a b', '0, 50, 60'),
    ([0], 'a', 'values 0 '),
    ([0, 1, 2], 'a', '0, 1, 2'),
    ([0, 1, 2], '', '--classes: .*0, 1, 2'),
    ([0, 1, 2], 'a=0 b=x c', 'b=x'),
    ([0, 1, 2], 'a=0 b c=2', '--classes b')])
def test_values_that_do_not_fit(run, write_maps, values, classes, named):
    with pytest.raises(ValueError, match=named):
        run(write_maps(values), *classes.split(), format='label-maps')


def test_sixteen_bits(run, write_maps, tmp_path):
    run(write_maps([0, 256, 1000, 65535], np.uint16), *'abcd')
    assert sampled(found_labels(tmp_path), 4) == [0, 1, 2, 3]


def test_palette_gives_indices(run, write_maps, tmp_path):
    run(write_maps([0, 1, 2], mode='P'), *'abc')
    assert sampled(found_labels(tmp_path), 3) == [0, 1, 2]


def test_colours(run, write_maps, tmp_path):
    maps = write_maps([(128, 0, 0), (0, 0, 128), (9, 9, 9), (0, 0, 0)])
    run(maps, 'sky=0,0,128', 'road=128,0,0', 'grey=9,9,9')
    assert sampled(found_labels(tmp_path), 4) == [1, 0, 2, 255]
    with pytest.raises(ValueError, match=r'colour.*\(128,0,0\).*--classes'):
        run(maps, *'abcd', force=True)


def test_256_classes_are_refused(run, write_maps):
    with pytest.raises(ValueError, match='256 classes'):
        run(write_maps(range(60)), *(f'c{i}' for i in range(256)))


def test_photos_are_no_label_maps(run, images, pictures, tmp_path):
    for picture in pictures:
        noise = np.random.default_rng(0).integers(0, 255, (*picture.size, 3), dtype=np.uint8)
        own_data.write_png(tmp_path / f'maps/{picture.stem}.png', noise)
    with pytest.raises(ValueError, match='photo1.png: more than'):
        run(tmp_path / 'maps', 'a', 'b')
