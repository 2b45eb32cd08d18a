"""Every format gives the same objects, pixel by pixel."""

import numpy as np
import own_data
import pytest

from knet_plugin.datasets.description import DataDescription
from knet_plugin.datasets.prepare import FORMATS, Options, find_sources, prepare

SPLITS = ('train', 'val')
CLASSES, STUFF = own_data.CLASSES, own_data.STUFF
WRITERS = {
    'instance-masks': own_data.write_class_folders,
    'object-masks': own_data.write_object_masks,
    'binary-masks': own_data.write_binary_masks,
    'coco': own_data.write_coco,
    'yolo': own_data.write_yolo,
    'labelme': own_data.write_labelme,
}


def write(key, tmp_path, pictures):
    return WRITERS[key](tmp_path / ('data.json' if key == 'coco' else 'labels'), pictures)


@pytest.mark.parametrize('key', WRITERS)
def test_objects_of_every_format(key, pictures, images, tmp_path):
    annotations = write(key, tmp_path, pictures)
    options = Options(format='binary-masks' if key == 'binary-masks' else 'auto', stuff=(STUFF,))
    prepared = prepare(find_sources(images, annotations), tmp_path / 'out', options)
    assert prepared.format == key
    assert prepared.notes == []
    assert prepared.images == {'train': 4, 'val': 1}
    description = DataDescription.read(tmp_path / 'out')
    assert description == prepared.description
    assert (set(description.things), description.stuff, description.task) == (set(CLASSES), (STUFF,), 'panoptic')
    truth = {picture.name: picture for picture in pictures}
    for split in SPLITS:
        instances = own_data.read_instances(tmp_path / 'out', split)
        for name, objects in instances.items():
            assert own_data.as_set(objects) == own_data.as_set(truth[name].masks())
            check_maps(tmp_path / 'out', split, truth[name], description)
            truth.pop(name)
            assert (tmp_path / 'out/images' / split / name).samefile(images / name)  # a hard link
    assert not truth
    assert len(list((tmp_path / 'out/samples').glob('*.jpg'))) == 4


def check_maps(root, split, picture, description):
    """Panoptic and label map agree with the picture's labels, and ``segments_info`` with its pixels."""
    expected = np.array([description.classes.index(name) for name in (*CLASSES, STUFF)])[picture.labels()]
    assert np.array_equal(own_data.read_labels(root, split, picture.name), expected)
    ids, infos = own_data.read_panoptic(root, split)[picture.name]
    assert {info['id'] for info in infos} == set(np.unique(ids).tolist())
    segments = [(info['name'], ids == info['id']) for info in infos]
    floor = (STUFF, picture.ids() == 0)
    assert own_data.as_set(segments) == own_data.as_set([*picture.masks(), floor])
    for info in infos:
        rows, columns = np.nonzero(ids == info['id'])
        assert info['area'] == len(rows)
        assert info['bbox'] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]


def test_instance_masks_of_one_class_without_stuff(pictures, images, tmp_path):
    for picture in pictures:
        own_data.write_png(tmp_path / f'masks/{picture.stem}_mask.png', picture.ids())
    prepared = prepare(find_sources(images, tmp_path / 'masks'), tmp_path / 'out', Options(classes=('pet',)))
    assert (prepared.format, prepared.description.tasks) == ('instance-masks', ('instance',))
    assert not (tmp_path / 'out/labels').exists()
    found = {name: objects for split in SPLITS for name, objects in
             own_data.read_instances(tmp_path / 'out', split).items()}
    for picture in pictures:
        assert own_data.as_set(found[picture.name]) == {('pet', mask.tobytes()) for _, mask in picture.masks()}


def test_label_maps(pictures, images, tmp_path):
    maps = own_data.write_label_maps(tmp_path / 'maps', pictures)
    prepared = prepare(find_sources(images, maps), tmp_path / 'out', Options(classes=(*CLASSES, STUFF)))
    assert (prepared.format, prepared.description.tasks) == ('label-maps', ('semantic',))
    assert prepared.description.classes == (*CLASSES, STUFF)
    assert not (tmp_path / 'out/annotations').exists()
    for picture in pictures:
        split = 'val' if (tmp_path / 'out/images/val' / picture.name).exists() else 'train'
        assert np.array_equal(own_data.read_labels(tmp_path / 'out', split, picture.name), picture.labels())


def test_panoptic(pictures, images, tmp_path):
    file = own_data.write_panoptic(tmp_path / 'panoptic.json', pictures)
    prepared = prepare(find_sources(images, file), tmp_path / 'out', Options())
    assert (prepared.format, prepared.notes) == ('coco-panoptic', [])
    assert prepared.description.classes == (*CLASSES, STUFF)
    seen = 0
    for split in SPLITS:
        for name, (ids, infos) in own_data.read_panoptic(tmp_path / 'out', split).items():
            picture = next(each for each in pictures if each.name == name)
            expected = picture.labels()
            expected[0] = 255
            labels = own_data.read_labels(tmp_path / 'out', split, name)
            assert np.array_equal(labels, expected)
            assert np.array_equal(ids == 0, expected == 255)
            things = [(info['name'], ids == info['id']) for info in infos if info['name'] != STUFF]
            assert own_data.as_set(things) == own_data.as_set(picture.masks())
            seen += 1
    assert seen == len(pictures)


def test_every_format_is_tested():
    assert {*WRITERS, 'label-maps', 'coco-panoptic'} == set(FORMATS)
