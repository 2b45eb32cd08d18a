"""The annotation formats agree, and a data set on disk is complete or absent."""

import filecmp
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_utils

from knet_plugin.datasets.shapes import CLASSES, THING_CLASSES, draw_scene, make_shapes, writer

SIZE = (64, 96)
NUM_TRAIN, NUM_VAL = 48, 6


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('shapes') / 'data'
    make_shapes(root, NUM_TRAIN, NUM_VAL, SIZE, seed=5)
    return root


def files_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob('*') if path.is_file())


def load(path: Path) -> dict:
    return json.loads(path.read_text())


def panoptic_map(path: Path) -> np.ndarray:
    blue, green, red = np.moveaxis(cv2.imread(str(path)).astype(np.int64), -1, 0)
    return red + 256 * green + 256**2 * blue


@pytest.mark.parametrize(('split', 'count'), [('train', NUM_TRAIN), ('val', NUM_VAL)])
def test_formats_agree(root, split, count):
    instances = load(root / f'annotations/instances_{split}.json')
    panoptic = load(root / f'annotations/panoptic_{split}.json')
    assert [category['name'] for category in panoptic['categories']] == list(CLASSES)
    assert [category['name'] for category in instances['categories']] == list(THING_CLASSES)
    assert panoptic['images'] == instances['images'] and len(panoptic['images']) == count
    assert [each['id'] for each in instances['annotations']] == list(range(1, len(instances['annotations']) + 1))
    by_image: dict[int, list[dict]] = {image['id']: [] for image in instances['images']}
    for annotation in instances['annotations']:
        by_image[annotation['image_id']].append(annotation)

    for image, entry in zip(panoptic['images'], panoptic['annotations'], strict=True):
        assert entry['image_id'] == image['id'] and entry['file_name'] == image['file_name'].replace('.jpg', '.png')
        assert cv2.imread(str(root / split / image['file_name'])).shape == (*SIZE, 3)
        assert (image['height'], image['width']) == SIZE
        segments = panoptic_map(root / f'annotations/panoptic_{split}' / entry['file_name'])
        semantic = cv2.imread(str(root / f'annotations/semantic_{split}' / entry['file_name']), cv2.IMREAD_UNCHANGED)
        assert semantic.dtype == np.uint8 and semantic.shape == segments.shape == SIZE
        assert np.array_equal(semantic == 0, segments == 0)
        assert {info['id'] for info in entry['segments_info']} == set(np.unique(segments).tolist()) - {0}
        check_segments(entry['segments_info'], by_image[image['id']], segments, semantic)


def check_segments(infos: list[dict], things: list[dict], segments: np.ndarray, semantic: np.ndarray) -> None:
    """Compare ``segments_info`` with the maps and with the instances of the same image."""
    for info in infos:
        mask = segments == info['id']
        assert (semantic[mask] == info['category_id']).all()
        rows, columns = np.nonzero(mask)
        x, y = columns.min(), rows.min()
        assert info['area'] == mask.sum()
        assert info['bbox'] == [x, y, columns.max() - x + 1, rows.max() - y + 1]
    known = [info for info in infos if info['category_id'] <= len(THING_CLASSES)]
    for info, thing in zip(known, things, strict=True):
        assert np.array_equal(mask_utils.decode(thing['segmentation']), segments == info['id'])
        assert all(thing[key] == info[key] for key in ('category_id', 'area', 'bbox', 'iscrowd'))


def test_images_do_not_depend_on_their_number(root, tmp_path):
    make_shapes(tmp_path / 'fewer', 3, 2, SIZE, seed=5)
    files = [name for name in files_below(tmp_path / 'fewer') if not name.endswith('.json')]
    assert len(files) == 3 * (3 + 2)
    assert filecmp.cmpfiles(root, tmp_path / 'fewer', files, shallow=False) == (files, [], [])
    assert not filecmp.cmp(root / 'train/000000.jpg', root / 'val/000000.jpg', shallow=False)
    make_shapes(tmp_path / 'other', 1, 0, SIZE, seed=6)
    assert not filecmp.cmp(root / 'train/000000.jpg', tmp_path / 'other/train/000000.jpg', shallow=False)


def test_second_call_does_nothing(root, monkeypatch):
    monkeypatch.setattr(writer, 'draw_scene', None)
    make_shapes(root, NUM_TRAIN, NUM_VAL, SIZE, seed=5)


@pytest.mark.parametrize(('field', 'there', 'wanted'), [
    ('seed', '5', 7), ('num_val', '6', 2), ('size', r'\[64, 96\]', 32), ('ambiguity', '3.0', 1.0)])
def test_other_options_are_refused(root, field, there, wanted):
    options = {'num_train': NUM_TRAIN, 'num_val': NUM_VAL, 'size': SIZE, 'seed': 5} | {field: wanted}
    before = files_below(root)
    with pytest.raises(FileExistsError, match=f'{field} is {there}'):
        make_shapes(root, **options)
    assert files_below(root) == before


def test_overwrite_replaces_shapes_only(tmp_path):
    root = tmp_path / 'shapes'
    root.mkdir()  # an empty directory may be used
    make_shapes(root, 2, 0, 32)
    make_shapes(root, 1, 0, 32, overwrite=True)
    assert len(list((root / 'train').iterdir())) == 1
    assert list(tmp_path.iterdir()) == [root]

    foreign = tmp_path / 'foreign'
    foreign.mkdir()
    (foreign / 'manifest.json').write_text('{"name": "a web page"}')
    with pytest.raises(FileExistsError, match=str(foreign)):
        make_shapes(foreign, 1, 1, 32, overwrite=True)
    assert files_below(foreign) == ['manifest.json']


def test_interrupted_call_leaves_nothing(tmp_path, monkeypatch):
    calls = []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return draw_scene(*args)

    monkeypatch.setattr(writer, 'draw_scene', interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_shapes(tmp_path / 'shapes', 5, 1, 32)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('faster', [5, 6], ids=['same options', 'other options'])
def test_two_calls_at_once(tmp_path, monkeypatch, faster):
    root = tmp_path / 'shapes'

    def write_twice(*args):
        monkeypatch.undo()
        make_shapes(root, 1, 1, 32, seed=faster)
        write(*args)

    write = writer._write
    monkeypatch.setattr(writer, '_write', write_twice)
    if faster == 5:
        make_shapes(root, 1, 1, 32, seed=5)
    else:
        with pytest.raises(FileExistsError, match='seed is 6'):
            make_shapes(root, 1, 1, 32, seed=5)
    assert load(root / 'manifest.json')['seed'] == faster
    assert list(tmp_path.iterdir()) == [root]


@pytest.mark.parametrize(('name', 'value'), [
    ('num_train', -1), ('size', 16), ('size', (64, 31)), ('seed', -3), ('ambiguity', -0.5), ('ambiguity', float('nan')),
    ('hue', float('inf')), ('min_object', 0.0), ('min_object', 90.0)])
def test_bad_options_are_named(tmp_path, name, value):
    with pytest.raises(ValueError, match=f'{name} .*{value[1] if isinstance(value, tuple) else value}'):
        make_shapes(tmp_path / 'shapes', **{name: value})
    assert list(tmp_path.iterdir()) == []
