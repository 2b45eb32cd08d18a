"""Ids, sizes and repeated records of COCO files as people have them."""

import json

import own_data
import pytest

from knet_plugin.datasets.coco_file import read_coco


@pytest.fixture(params=['coco', 'panoptic'])
def content(request, tmp_path):
    """Instances or panoptic annotations of two pictures."""
    write = getattr(own_data, f'write_{request.param}')
    data = json.loads(write(tmp_path / 'data.json', own_data.make_pictures(2)).read_text())
    for i, image in enumerate(data['images']):
        image['id'] = i + 10
    for annotation in data['annotations']:
        if 'segments_info' in annotation:
            annotation['image_id'] = int(annotation['image_id'][5:]) + 10
    return data


@pytest.fixture
def read(tmp_path):
    def read(data, encoding='utf-8', **options):
        (tmp_path / 'data.json').write_text(json.dumps(data), encoding=encoding)
        return read_coco(str(tmp_path / 'data.json'), **options)

    return read


def as_text(value):
    if isinstance(value, dict):
        kept = ('counts', 'size', 'segmentation')
        return {key: each if key in kept else as_text(each) for key, each in value.items()}
    return [as_text(each) for each in value] if isinstance(value, list) else str(value)


@pytest.mark.parametrize('fields', [('images',), ('categories',), ('annotations',),
                                    ('images', 'categories', 'annotations')])
def test_numbers_as_text(read, content, fields):
    expected = read(content)
    found = read(content | {field: as_text(content[field]) for field in fields})
    assert not found.skipped and found.data == expected.data


@pytest.mark.parametrize(('value', 'expected'), [('false', 0), ('0', 0), (None, 0), (False, 0), ('True', 1), ('1', 1)])
def test_iscrowd(read, content, value, expected):
    for each in content['annotations']:
        for record in each.get('segments_info', [each]):
            record['iscrowd'] = value
    for each in read(content).data['annotations']:
        assert {record['iscrowd'] for record in each.get('segments_info', [each])} == {expected}


@pytest.mark.parametrize('field', ['images', 'categories'])
def test_equal_records_are_merged(read, content, field):
    expected = read(content).data
    file = read(content | {field: [*content[field], content[field][0]]})
    assert file.data == expected
    assert f'1 repeated entries of "{field}"' in file.lines('data.json')[0]


def test_annotation_without_image(read, content):
    number = len(read(content).data['annotations'])
    del content['annotations'][0]['image_id']
    file = read(content)
    assert len(file.data['annotations']) == number - 1 and file.skipped


def test_byte_order_mark(read, content):
    assert read(content, 'utf-8-sig').data == read(content).data


@pytest.mark.parametrize('size', [{}, dict(height=None, width=None), dict(height=0, width=0),
                                  dict(height='?', width=3)])
def test_missing_size(read, content, size):
    expected = read(content).data
    names = {image['file_name']: (image.pop('height'), image.pop('width')) for image in content['images']}
    for image in content['images']:
        image.update(size)
    assert read(content, size_of=names.get).data == expected
    name, _ = names.popitem()
    file = read(content, size_of=names.get)
    assert len(file.data['images']) == 1 and '1 images without height' in file.notes[0]
    assert name not in str(file.data['images'])
