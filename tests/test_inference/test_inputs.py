"""Files, folders, patterns and videos."""

import cv2
import mmcv
import numpy as np
import pytest
from mmengine.registry import TRANSFORMS

from knet_plugin.inference.images import ImageReader
from knet_plugin.inference.inputs import Frame, InputError, Source, find_sources, number_of_frames, read_frames
from knet_plugin.inference.outputs import PictureWriter

assert TRANSFORMS.get('LoadImageFromFile')  # mmcv's
PHOTO = np.arange(16 * 24 * 3, dtype=np.uint8).reshape(16, 24, 3)


def images(folder, *names):
    for name in names:
        mmcv.imwrite(PHOTO[..., ::-1], folder / name)
    return folder


def reader(**options):
    return ImageReader(dict(type='LoadImageFromFile', **options))


def names(*inputs, **options):
    return [source.name for source in find_sources(inputs, **options)]


def test_folders_keep_their_subfolders(tmp_path):
    folder = images(tmp_path, 'b.png', 'sub/a.JPG', 'sub/ü 漢.png', '.hidden/c.png')
    (folder / 'notes.txt').touch()
    assert names(folder) == ['b', 'sub/a', 'sub/ü 漢']
    assert names(folder / 'sub/a.JPG') == ['a']
    assert names(f'{folder}/*.png') == ['b'] and names(f'{folder}/**/*.png') == ['b', 'sub/ü 漢']


def test_equal_names_stay_apart(tmp_path):
    one, two = images(tmp_path / 'one', 'a.png', 'a.jpg'), images(tmp_path / 'two', 'a.png', 'a_instances.png')
    assert names(one, two) == ['a', 'a_2', 'a_3', 'a_instances_2']
    files = [source.file_name for source in find_sources([one, two])]
    assert len(set(files)) == 4 and files[:2] == ['a.jpg', 'a.png']


def test_a_file_is_taken_once_and_results_are_left_out(tmp_path):
    folder = images(tmp_path, 'a.png', 'out/a.jpg')
    assert names(folder / 'a.png', folder, leave_out=folder / 'out') == ['a']


@pytest.mark.parametrize('name', ['missing.jpg', 'missing/', '*.jpg', 'empty'])
def test_missing_inputs_are_named(name, tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(InputError, match=str(tmp_path)):
        find_sources([tmp_path / name])


def test_unreadable_files_are_passed_over(tmp_path):
    folder = images(tmp_path, 'c.png')
    (folder / 'a.png').write_bytes(b'no image')
    (folder / 'b.mp4').write_bytes(b'no video')
    failed = []
    frames = list(read_frames(find_sources([folder]), reader(), failed))
    assert [frame.source.name for frame in frames] == ['c'] and np.array_equal(frames[0].image, PHOTO)
    assert [str(folder / name) in line for name, line in zip(('a.png', 'b.mp4'), failed, strict=True)] == [True, True]


def test_video_there_and_back(tmp_path):
    writer = PictureWriter(tmp_path)
    levels = (40, 120, 200)
    colours = np.stack([np.full((32, 48), level, np.uint8) for level in levels], axis=-1)
    source = Source(tmp_path / 'in.mp4', 'in.mp4', 'sub/film', True)
    for number in range(4):
        writer.add(Frame(source, colours, number, 10.), {'': colours})
    writer.close()
    assert writer.written == [tmp_path / 'sub/film.mp4']
    sources = find_sources([tmp_path])
    frames = list(read_frames(sources, reader(), []))
    assert len(frames) == number_of_frames(sources) == 4 and [frame.number for frame in frames] == [0, 1, 2, 3]
    assert frames[0].rate == pytest.approx(10)
    assert np.abs(frames[0].image.mean(axis=(0, 1)) - levels).max() < 12  # RGB, compressed


@pytest.mark.parametrize('options, shape', [({}, (16, 24, 3)), (dict(color_type='grayscale'), (16, 24)),
                                            (dict(to_float32=True), (16, 24, 3))])
def test_path_array_and_pil_image_are_the_same_input(options, shape, tmp_path):
    from PIL import Image

    path = images(tmp_path, 'a.png') / 'a.png'
    read = reader(**options)
    expected = read._load(dict(img_path=str(path)))['img']
    given = [path, str(path), read.read(path)]
    if not options:
        given += [Image.open(path), np.dstack([PHOTO, PHOTO[..., 0]])]
    for image in given:
        inputs = read.inputs(image)
        assert inputs['img'].dtype == expected.dtype and inputs['img'].shape == shape
        assert np.array_equal(inputs['img'], expected) and inputs['ori_shape'] == (16, 24)


def test_16_bits_and_four_channels_stay_as_they_are(tmp_path):
    read = reader(color_type='unchanged')
    deep = (PHOTO[..., 0].astype(np.uint16) * 16)
    four = np.dstack([PHOTO, PHOTO[..., 1]])
    for name, image in (('deep.png', deep), ('four.png', four)):
        cv2.imwrite(str(tmp_path / name), image)
        inputs = read.inputs(tmp_path / name)['img']
        assert inputs.dtype == image.dtype and np.array_equal(inputs, image)
    assert np.array_equal(read.picture(tmp_path / 'four.png'), four[..., 2::-1])  # OpenCV writes BGRA


def test_arrays_and_pil_images_of_16_bits_are_read_as_files_are(tmp_path):
    from PIL import Image

    path = tmp_path / 'deep.png'
    deep = PHOTO[..., 0].astype(np.uint16) * 257
    cv2.imwrite(str(path), deep)
    for color_type in (3, 'color'):  # 3: IMREAD_COLOR | IMREAD_ANYDEPTH
        read = reader(color_type=color_type)
        expected = read.inputs(path)['img']
        assert expected.shape == (16, 24, 3) and expected.dtype == (np.uint16 if color_type == 3 else np.uint8)
        for image in (deep, Image.open(path)):
            assert np.array_equal(read.inputs(image)['img'], expected)
            assert read.inputs(image)['img'].dtype == expected.dtype


@pytest.mark.parametrize('image', [np.zeros((0, 3, 3)), np.zeros(5), 7, None])
def test_what_is_no_image(image):
    with pytest.raises(ValueError, match='image must be'):
        reader().array(image)
