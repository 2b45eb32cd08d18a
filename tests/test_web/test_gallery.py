"""Models by name, and pictures in memory."""

import io

import numpy as np
import pytest
from PIL import Image
from small_predictors import small_run

from knet_plugin.inference.image_files import UnreadableError
from knet_plugin.inference.opening import OPENING_ERRORS
from knet_plugin.web import gallery
from knet_plugin.web.gallery import Gallery, find_models

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def encoded(image=RGB, kind='PNG', **options):
    content = io.BytesIO()
    Image.fromarray(image).save(content, kind, **options)
    return content.getvalue()


def test_a_folder_stands_for_its_work_folders(tmp_path):
    runs = tmp_path / 'work_dirs'
    for name in ('a', 'b'):
        small_run('semantic', runs / name)
    (runs / 'a.py').touch()  # as knet train writes it
    (runs / 'unfinished').mkdir()
    (runs / 'unfinished/config.py').touch()
    engine = tmp_path / 'a.onnx'
    engine.touch()
    assert find_models([str(runs), str(engine)]) == {
        'a': str(runs / 'a'), 'b': str(runs / 'b'), 'a.onnx': str(engine)}
    assert find_models([str(runs / 'a')]) == {'a': str(runs / 'a')}


def test_models_of_one_name_are_told_apart(tmp_path):
    paths = [str(small_run('semantic', tmp_path / parent / 'run')) for parent in 'xy']
    assert find_models([*paths, paths[0]]) == {'run': paths[0], paths[1]: paths[1]}


@pytest.mark.parametrize('name', ['nowhere.onnx', 'nowhere', 'empty'])
def test_missing_models_are_named(name, tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(OPENING_ERRORS, match=name):
        find_models([str(tmp_path / name)])


def test_pictures_are_as_uploaded():
    pictures = Gallery({})
    assert (pictures.picture(pictures.add('x.png', encoded())).image == RGB).all()
    grey = pictures.picture(pictures.add('grey.png', encoded(RGB[..., 0]))).image
    assert (grey == RGB[..., :1]).all()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    assert pictures.picture(pictures.add('x.png', encoded(exif=exif))).image.shape == (30, 20, 3)


@pytest.mark.parametrize('content', [b'', b'GIF89a', b'no picture', encoded()[:60], encoded(kind='JPEG')[:200]])
def test_files_that_are_no_pictures(content):
    with pytest.raises(UnreadableError, match='bad.png'):
        Gallery({}).add('bad.png', content)


def test_very_large_pictures_are_refused_before_they_are_decoded(monkeypatch):
    content = encoded()
    monkeypatch.setattr(gallery, 'MOST_PIXELS', 599)
    monkeypatch.setattr(Image.Image, 'load', lambda image: pytest.fail('it is decoded'))
    with pytest.raises(UnreadableError, match='at most 599'):
        Gallery({}).add('large.png', content)


def test_no_other_program_reads_a_picture():
    """Pillow calls Ghostscript for PostScript."""
    with pytest.raises(UnreadableError, match='x.eps'):
        Gallery({}).add('x.eps', encoded(kind='EPS'))


def test_a_picture_can_replace_another():
    pictures = Gallery({})
    first, second = pictures.add('a.png', encoded()), pictures.add('b.png', encoded())
    third = pictures.add('c.png', encoded(), replaces=second)
    assert [pictures.picture(number).name for number in (first, third)] == ['a.png', 'c.png']
    with pytest.raises(ValueError, match='again'):
        pictures.picture(second)


def test_large_pictures_are_kept_by_their_pixels(monkeypatch):
    monkeypatch.setattr(gallery, 'KEPT_PIXELS', 2 * RGB[..., 0].size)
    pictures = Gallery({})
    numbers = [pictures.add(f'{i}.png', encoded()) for i in range(3)]
    assert pictures.picture(numbers[1]).name == '1.png'
    with pytest.raises(ValueError, match='again'):
        pictures.picture(numbers[0])


def test_old_pictures_are_dropped():
    pictures = Gallery({})
    numbers = [pictures.add(f'{i}.png', encoded()) for i in range(gallery.KEPT + 2)]
    assert [pictures.picture(number).name for number in numbers[2:]] == [f'{i}.png' for i in range(2, gallery.KEPT + 2)]
    with pytest.raises(ValueError, match='add this one again'):
        pictures.picture(numbers[1])
