"""The files: right, consistent with one another, reproducible, and never half there."""

import filecmp
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_utils

from knet_plugin.datasets.shapes import CLASSES, THING_CLASSES, Style, make_shapes, shapes_formats

SIZE = (64, 96)
NUM_TRAIN, NUM_VAL = 48, 6


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('shapes') / 'data'
    make_shapes(root, NUM_TRAIN, NUM_VAL, SIZE, seed=5, workers=0)
    return root


def files_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob('*') if path.is_file())


def load(path: Path) -> dict:
    return json.loads(path.read_text())


def panoptic_map(path: Path) -> np.ndarray:
    blue, green, red = np.moveaxis(cv2.imread(str(path)).astype(np.int64), -1, 0)
    return red + 256 * green + 256**2 * blue


def test_files_are_where_they_should_be(root):
    expected = ['manifest.json']
    for split, count in (('train', NUM_TRAIN), ('val', NUM_VAL)):
        expected += [f'annotations/{task}_{split}.json' for task in ('instances', 'panoptic')]
        for index in range(count):
            expected.append(f'{split}/{index:06d}.jpg')
            expected += [f'annotations/{task}_{split}/{index:06d}.png' for task in ('panoptic', 'semantic')]
    assert files_below(root) == sorted(expected)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_formats_agree_to_the_pixel(root, split):
    instances = load(root / f'annotations/instances_{split}.json')
    panoptic = load(root / f'annotations/panoptic_{split}.json')
    assert [category['name'] for category in panoptic['categories']] == list(CLASSES)
    assert [category['name'] for category in instances['categories']] == list(THING_CLASSES)
    assert panoptic['images'] == instances['images']
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

        things = iter(by_image[image['id']])
        for info in entry['segments_info']:
            mask = segments == info['id']
            assert (semantic[mask] == info['category_id']).all()
            rows, columns = np.nonzero(mask)
            x, y = columns.min(), rows.min()
            assert info['area'] == mask.sum()
            assert info['bbox'] == [x, y, columns.max() - x + 1, rows.max() - y + 1]
            if info['category_id'] <= len(THING_CLASSES):
                thing = next(things)
                assert np.array_equal(mask_utils.decode(thing['segmentation']), mask)
                assert all(thing[key] == info[key] for key in ('category_id', 'area', 'bbox', 'iscrowd'))
            else:
                assert info['iscrowd'] == 0
        assert next(things, None) is None


def test_annotation_ids_are_unique_and_start_at_one(root):
    ids = [annotation['id'] for annotation in load(root / 'annotations/instances_train.json')['annotations']]
    assert ids == list(range(1, len(ids) + 1))


def test_crowds_are_in_both_json_files(root):
    crowds = [a for a in load(root / 'annotations/instances_train.json')['annotations'] if a['iscrowd']]
    infos = [info for entry in load(root / 'annotations/panoptic_train.json')['annotations']
             for info in entry['segments_info'] if info['iscrowd']]
    assert len(crowds) == len(infos) > 0


def test_files_depend_neither_on_workers_nor_on_the_number_of_images(root, tmp_path):
    make_shapes(tmp_path / 'workers', NUM_TRAIN, NUM_VAL, SIZE, seed=5, workers=2)
    files = files_below(root)
    assert filecmp.cmpfiles(root, tmp_path / 'workers', files, shallow=False) == (files, [], [])

    make_shapes(tmp_path / 'fewer', 3, 2, SIZE, seed=5, workers=0)
    files = [name for name in files_below(tmp_path / 'fewer') if not name.endswith('.json')]
    assert len(files) == 3 * (3 + 2)
    assert filecmp.cmpfiles(root, tmp_path / 'fewer', files, shallow=False) == (files, [], [])


def test_splits_and_seeds_differ(root, tmp_path):
    assert not filecmp.cmp(root / 'train/000000.jpg', root / 'val/000000.jpg', shallow=False)
    make_shapes(tmp_path / 'other', 1, 0, SIZE, seed=6)
    assert not filecmp.cmp(root / 'train/000000.jpg', tmp_path / 'other/train/000000.jpg', shallow=False)


def test_colours_survive_the_compression(root):
    written = cv2.imread(str(root / 'train/000000.jpg'))[..., ::-1].astype(float)
    rng = np.random.default_rng(np.random.SeedSequence(5, spawn_key=(0, 0)))
    drawn = shapes_formats.draw_scene(rng, SIZE).image.astype(float)
    assert np.abs(written - drawn).mean() < 3 and np.abs((written - drawn).mean((0, 1))).max() < 0.5


def test_empty_splits(tmp_path):
    make_shapes(tmp_path / 'shapes', 0, 0)
    assert load(tmp_path / 'shapes/annotations/panoptic_val.json')['annotations'] == []


def test_second_call_does_nothing(root, monkeypatch):
    monkeypatch.setattr(shapes_formats, 'draw_scene', None)
    make_shapes(root, NUM_TRAIN, NUM_VAL, SIZE, seed=5)


@pytest.mark.parametrize(('field', 'there', 'wanted'), [('seed', '5', '7'), ('num_val', '6', '2'),
                                                        ('size', r'\[64, 96\]', r'\[32, 32\]'),
                                                        ('ambiguity', '3.0', '1.0'), ('hue', '0.0', '1.0'),
                                                        ('min_object', '6.0', '20.0')])
def test_different_data_set_is_refused(root, field, there, wanted):
    request = {'num_train': NUM_TRAIN, 'num_val': NUM_VAL, 'size': SIZE, 'seed': 5}
    request[field] = 32 if field == 'size' else float(wanted) if '.' in wanted else int(wanted)
    before = files_below(root)
    with pytest.raises(FileExistsError, match=f'{field} is {there} there, but {wanted} was asked for'):
        make_shapes(root, **request)
    assert files_below(root) == before


def test_style_reaches_the_pixels_and_the_manifest(tmp_path):
    style = {'ambiguity': 0, 'hue': np.float32(0.25), 'min_object': 20}
    for workers in (0, 2):  # the second call finds what it would make
        make_shapes(tmp_path, 1, 0, SIZE, seed=5, workers=workers, **style)
    manifest = load(tmp_path / 'manifest.json')
    assert {name: manifest[name] for name in style} == {'ambiguity': 0.0, 'hue': 0.25, 'min_object': 20.0}
    rng = np.random.default_rng(np.random.SeedSequence(5, spawn_key=(0, 0)))
    drawn = shapes_formats.draw_scene(rng, SIZE, Style(0.0, 0.25, 20.0))
    written = cv2.imread(str(tmp_path / 'train/000000.jpg'))[..., ::-1].astype(float)
    assert np.abs((written - drawn.image).mean((0, 1))).max() < 0.5
    assert np.array_equal(panoptic_map(tmp_path / 'annotations/panoptic_train/000000.png'), drawn.segment_map)


def test_overwrite_replaces_shapes_only(tmp_path):
    root = tmp_path / 'shapes'
    make_shapes(root, 2, 1, 32)
    make_shapes(root, 1, 1, 32, overwrite=True)
    assert len(list((root / 'train').iterdir())) == 1
    assert list(tmp_path.iterdir()) == [root]

    foreign = tmp_path / 'foreign'
    foreign.mkdir()
    (foreign / 'manifest.json').write_text('{"name": "a web page"}')
    with pytest.raises(FileExistsError, match='not a Shapes data set'):
        make_shapes(foreign, 1, 1, 32, overwrite=True)
    assert files_below(foreign) == ['manifest.json']


def test_empty_directory_is_used(tmp_path):
    make_shapes(tmp_path / 'a/b', 1, 0, 32)
    (tmp_path / 'empty').mkdir()
    make_shapes(tmp_path / 'empty', 1, 0, 32)
    assert files_below(tmp_path / 'empty') == files_below(tmp_path / 'a/b')


def test_interrupted_call_leaves_nothing_and_the_next_one_completes(tmp_path, monkeypatch):
    draw_scene, calls = shapes_formats.draw_scene, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return draw_scene(*args)

    monkeypatch.setattr(shapes_formats, 'draw_scene', interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_shapes(tmp_path / 'shapes', 5, 1, 32, workers=0)
    assert list(tmp_path.iterdir()) == []
    make_shapes(tmp_path / 'shapes', 5, 1, 32, workers=0)
    assert (tmp_path / 'shapes/manifest.json').is_file() and len(list((tmp_path / 'shapes/train').iterdir())) == 5


def test_two_calls_at_once_agree(tmp_path, monkeypatch):
    """The slower of two processes finds the data set of the faster one in its place."""
    draw_scene, root = shapes_formats.draw_scene, tmp_path / 'shapes'

    def overtaken(*args):
        monkeypatch.setattr(shapes_formats, 'draw_scene', draw_scene)
        make_shapes(root, 2, 1, 32)
        return draw_scene(*args)

    monkeypatch.setattr(shapes_formats, 'draw_scene', overtaken)
    make_shapes(root, 2, 1, 32)
    assert list(tmp_path.iterdir()) == [root]


@pytest.mark.parametrize(('name', 'value'), [('num_train', -1), ('num_val', 1.5), ('size', 16), ('size', (64, 31)),
                                             ('size', (64, 64, 3)), ('size', '128'), ('seed', -3), ('workers', -1),
                                             ('ambiguity', -0.5), ('ambiguity', float('nan')), ('hue', -1.0),
                                             ('hue', float('inf')), ('hue', '0.1'),
                                             ('min_object', 0), ('min_object', float('nan')), ('min_object', None),
                                             ('min_object', 90.0)])
def test_bad_arguments_are_named(tmp_path, name, value):
    shown = value if name != 'size' or not isinstance(value, tuple) or len(value) == 3 else value[1]
    with pytest.raises(ValueError, match=name) as error:
        make_shapes(tmp_path / 'shapes', **{name: value})
    assert repr(shown) in str(error.value)
    assert list(tmp_path.iterdir()) == []
