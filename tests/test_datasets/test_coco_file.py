import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from knet_plugin.datasets.coco_file import CocoFile, ids_of_classes, read_coco

SAMPLES = Path(__file__).resolve().parents[3] / 'shared/real_samples'
SIZE = (20, 30)
SQUARE = [[2, 3, 8, 3, 8, 9, 2, 9]]


def compressed(mask: np.ndarray) -> dict:
    rle = mask_utils.encode(np.asfortranarray(mask))
    return dict(rle, counts=rle['counts'].decode())


def noise(*size: int, share: float = 0.3) -> np.ndarray:
    return (np.random.default_rng(0).random(size) < share).astype(np.uint8)


def instances(*objects: dict, **fields: Any) -> dict:
    """Content of a file with one image; objects are in it and complete unless they say otherwise."""
    full = dict(image_id=7, category_id=1, segmentation=SQUARE, bbox=[2, 3, 6, 6], area=36, iscrowd=0)
    return dict(images=[dict(id=7, file_name='a.jpg', height=SIZE[0], width=SIZE[1])],
                categories=[dict(id=1, name='cat'), dict(id=2, name='dog')],
                annotations=[{'id': i, **full, **each} for i, each in enumerate(objects, start=1)]) | fields


def panoptic(*segments: dict, **annotation: Any) -> dict:
    """Content of a panoptic file with one image."""
    content = instances()
    full = dict(image_id=7, file_name='b/a.png', segments_info=[{'category_id': 1, **each} for each in segments])
    content['annotations'] = [full | annotation]
    return content


@pytest.fixture
def read(tmp_path):
    def read(content: dict, **options: Any) -> CocoFile:
        (tmp_path / 'file.json').write_text(json.dumps(content))
        return read_coco(str(tmp_path / 'file.json'), **options)

    return read


@pytest.mark.parametrize('segmentation', [SQUARE, SQUARE[0], compressed(noise(*SIZE)),
                                          dict(size=SIZE, counts=[0, 40, 560]), dict(size=SIZE, counts=[600])])
def test_complete_objects_stay_as_they_are(read, segmentation):
    file = read(instances(dict(segmentation=segmentation), dict(iscrowd=1)))
    assert [each['id'] for each in file.data['annotations']] == [1, 2]
    assert [each['iscrowd'] for each in file.data['annotations']] == [0, 1]
    assert file.data['annotations'][0]['area'] == 36
    assert not file.skipped and not file.lines('x') and not file.panoptic


@pytest.mark.parametrize(('segmentation', 'reason'), [
    (None, 'missing'), ([], 'empty'), ([[]], 'empty'), ({}, 'empty'), ([[], []], 'empty'),
    ([[1, 1, 5, 5]], '3 points'), ([[1, 1, 5, 5, 8, 8, 3]], '3 points'), ([1, 2], '3 points'),
    ([['1', 'x', '2', '3', '4', '5']], 'finite'), ([[float('nan')] * 6], 'finite'),
    ([[0, 0, 1e9, 0, 1e9, 1e9]], 'finite'), ('polygon', 'neither'),
    (compressed(noise(30, 20)), 'another size'), (dict(size=[10, 10], counts=[100]), 'another size'),
    (dict(counts=[600]), 'another size'),
    (dict(size=SIZE, counts=[5]), 'cover'), (dict(size=SIZE, counts=[700, -100]), 'cover'), (dict(size=SIZE), 'cover'),
    (dict(size=SIZE, counts=compressed(noise(*SIZE))['counts'][:-2]), 'cover'), (dict(size=SIZE, counts=''), 'cover'),
    (dict(size=SIZE, counts=compressed(noise(10, 10))['counts']), 'cover'), (dict(size=SIZE, counts='é'), 'cover'),
])
def test_object_that_cannot_be_drawn_is_skipped(read, segmentation, reason):
    file = read(instances(dict(segmentation=segmentation), {}))
    assert [each['id'] for each in file.data['annotations']] == [2]
    (found, count), = file.skipped.items()
    assert reason in found and count == 1
    assert 'file.json: 1 objects' in file.lines('file.json')[0]


def test_broken_parts_of_polygons(read):
    segmentation, = (each['segmentation'] for each in read(instances(dict(segmentation=[[], [1, 2], *SQUARE]))).data[
        'annotations'])
    assert segmentation == SQUARE


@pytest.mark.parametrize('change', [dict(image_id=8), dict(category_id=9), dict(category_id=None)])
def test_object_of_no_image_or_category(read, change):
    file = read(instances(change, {}))
    assert len(file.data['annotations']) == 1 and file.skipped.total() == 1


@pytest.mark.parametrize('missing', ['iscrowd', 'area', 'bbox'])
@pytest.mark.parametrize('segmentation', [SQUARE, compressed(noise(*SIZE)), dict(size=SIZE, counts=[0, 40, 560])])
def test_missing_values_are_filled(read, segmentation, missing):
    content = instances(dict(segmentation=segmentation))
    del content['annotations'][0][missing]
    filled, = read(content).data['annotations']
    rle = segmentation if isinstance(segmentation, dict) and isinstance(segmentation['counts'], str) else None
    if missing == 'iscrowd':
        assert filled['iscrowd'] == 0
    elif rle:
        assert filled['area'] == mask_utils.area(rle)
        assert filled['bbox'] == mask_utils.toBbox(rle).tolist()
    else:
        expected = (36, [2, 3, 6, 6]) if segmentation is SQUARE else (40, [0, 0, 2, 20])
        assert (filled['area'], filled['bbox']) == expected


@pytest.mark.parametrize('change', [dict(area=0), dict(bbox=[]), dict(bbox=[2, 3, 0, 0]), dict(bbox=None),
                                    dict(area='?'), dict(bbox=[1, 2, '3', 4])])
def test_useless_values_are_replaced(read, change):
    filled, = read(instances(change)).data['annotations']
    assert (filled['area'], filled['bbox']) == (36, [2, 3, 6, 6])


def test_segmentation_outside_the_image(read):
    file = read(instances(dict(segmentation=[[-9, -9, -5, -9, -5, -5]], area=None)))
    assert not file.data['annotations'] and file.skipped.total() == 1


@pytest.mark.parametrize(('ids', 'expected'), [
    ([3, 3, 5], [3, 6, 5]), ([0, 1, 2], [3, 1, 2]), ([None, None, 2], [3, 4, 2]), (['x', 4, True], [5, 4, 6])])
def test_ids_are_unique_and_positive(read, ids, expected):
    file = read(instances(*(dict(id=i) for i in ids)))
    assert [each['id'] for each in file.data['annotations']] == expected


def names(file: CocoFile) -> list[tuple]:
    return [(each['id'], each['name']) for each in file.data['categories']]


CHILDREN = [dict(id=1, name='cat', supercategory='pets'), dict(id=2, name='dog', supercategory='pets')]
ROOT = dict(id=0, name='pets', supercategory='none')


def test_root_category_without_objects(read):
    file = read(instances({}, categories=[ROOT, *CHILDREN]))
    assert names(file) == [(1, 'cat'), (2, 'dog')]
    assert "file.json: category 'pets'" in file.lines('file.json')[0]


def test_root_category_that_stays(read):
    content = instances({}, categories=[ROOT, *CHILDREN])
    assert len(names(read(content, classes=['pets', 'cat']))) == 3
    assert len(names(read(instances(dict(category_id=0), categories=[ROOT, *CHILDREN])))) == 3
    assert len(names(read(instances({}, categories=[ROOT, CHILDREN[0], dict(id=2, name='cow')])))) == 3
    assert names(read(instances(categories=[dict(ROOT, supercategory='pets')]))) == [(0, 'pets')]


@pytest.mark.parametrize('order', [1, -1])
def test_duplicate_category_without_objects(read, order):
    categories = [dict(id=0, name='cat', supercategory='none'), dict(id=1, name='cat', supercategory='cat')][::order]
    file = read(instances({}, categories=categories), classes=['cat'])
    assert names(file) == [(1, 'cat')]
    assert "'cat'" in file.lines('file.json')[0]
    assert len(names(read(instances(categories=categories)))) == 1


def test_two_categories_of_one_name_with_objects(read):
    categories = [dict(id=1, name='cat'), dict(id=2, name='cat')]
    with pytest.raises(ValueError, match=r"file\.json.* 1 and 2 .*'cat'"):
        read(instances({}, dict(category_id=2), categories=categories))


def test_ids_of_classes_in_their_order(read):
    data = read(instances()).data
    assert ids_of_classes(data, ['cow', 'dog', 'cat']) == [3, 2, 1]
    assert data['categories'][-1] == dict(id=3, name='cow')


@pytest.mark.parametrize('content', ['', 'no json', '\xff', '[]', '3', '{}', '{"images": []}',
                                     '{"images": {}, "categories": []}', '{"images": [1], "categories": []}'])
def test_other_files(tmp_path, content):
    path = tmp_path / 'other.json'
    path.write_bytes(content.encode('latin1'))
    with pytest.raises(ValueError, match=r'other\.json'):
        read_coco(str(path))


@pytest.mark.parametrize(('change', 'field'), [
    (dict(images=[dict(id=1, height=2, width=3)]), r'images\[0\].*file_name'),
    (dict(images=[dict(id=1, file_name='a', width=3)]), r'images\[0\].*height'),
    (dict(categories=[dict(id=1)]), r'categories\[0\].*name'),
    (dict(annotations=[dict(id=1)]), 'annotations .*image_id'),
    (dict(annotations=[1]), r'annotations\[0\]'),
    (dict(categories=[dict(id=4, name='a'), dict(id=4, name='b')]), 'id 4 .*categories'),
    (dict(images=[dict(id=5, file_name=name, height=1, width=1) for name in 'ab']), 'id 5 .*images'),
])
def test_records_that_cannot_be_read(read, change, field):
    with pytest.raises(ValueError, match=rf'file\.json.*{field}'):
        read(instances() | change)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='none.json'):
        read_coco(str(tmp_path / 'none.json'))


def test_file_without_annotations(read):
    content = instances()
    del content['annotations']
    assert read(content).data['annotations'] == []


def test_panoptic_segments(read):
    file = read(panoptic(dict(id=1), dict(id=2, iscrowd=1, bbox=[1, 2, 3, 4]), dict(id=1), dict(id=0), dict(),
                         dict(id=5, category_id=9)))
    annotation, = file.data['annotations']
    assert [(each['id'], each['iscrowd']) for each in annotation['segments_info']] == [(1, 0), (2, 1)]
    assert file.panoptic and sorted(file.skipped.values()) == [1, 3]


@pytest.mark.parametrize(('name', 'expected'), [('sub/x.png', 'sub/x.png'), (None, 'a.png'), ('', 'a.png')])
def test_panoptic_file_name(read, name, expected):
    file = read(panoptic(dict(id=1), file_name=name))
    assert file.data['annotations'][0]['file_name'] == expected


def test_panoptic_annotation_of_another_image(read):
    content = panoptic(dict(id=1))
    content['annotations'] += [dict(content['annotations'][0]), dict(content['annotations'][0], image_id=8)]
    file = read(content)
    assert len(file.data['annotations']) == 1 and file.skipped.total() == 2


def test_panoptic_annotation_without_segments(read):
    content = panoptic(dict(id=1))
    content['images'].append(dict(content['images'][0], id=8))
    content['annotations'].append(dict(image_id=8, file_name='c.png', segments_info=None))
    assert read(content).data['annotations'][1]['segments_info'] == []


@pytest.mark.skipif(not SAMPLES.is_dir(), reason='no real images')
@pytest.mark.parametrize('folder', ['coco', 'coco_train100'])
@pytest.mark.parametrize('kind', ['instances', 'panoptic'])
def test_real_files_stay_as_they_are(folder, kind):
    path = SAMPLES / folder / f'annotations/{kind}.json'
    file = read_coco(str(path))
    assert not file.skipped and not file.notes
    assert file.data == json.loads(path.read_text())
