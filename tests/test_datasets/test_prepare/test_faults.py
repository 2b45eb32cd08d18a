"""Bad input gives one line that names file, field or value, and nothing is written."""

import json
import shutil

import numpy as np
import own_data
import pytest

from knet_plugin.datasets.prepare import find_sources


def first(folder, pattern):
    return sorted(folder.rglob(pattern))[0]


def cut(path):
    path.write_bytes(path.read_bytes()[:-400])


FAULTS = {  # change of images and masks: what the line names
    'no masks': (lambda images, masks: [path.unlink() for path in masks.rglob('*.png')], 'masks'),
    'no images': (lambda images, masks: [path.unlink() for path in images.rglob('*.jpg')], 'images'),
    'no pair': (lambda images, masks: [path.rename(path.with_name(f'z{i}.png'))
                                       for i, path in enumerate(sorted(masks.rglob('*.png')))], 'masks.*images'),
    'another size': (lambda images, masks: own_data.write_png(masks / 'photo0.png', np.ones((40, 50), np.uint8)),
                     'photo0.jpg: 60 x 40 .*50 x 40'),
    'turned': (lambda images, masks: own_data.write_png(masks / 'photo0.png', np.ones((60, 40), np.uint8)),
               'photo0.jpg: 60 x 40 .*40 x 60.*EXIF'),
    'image is cut': (lambda images, masks: cut(images / 'photo0.jpg'), 'photo0.jpg'),
    'image is empty': (lambda images, masks: (images / 'photo0.jpg').write_bytes(b''), 'photo0.jpg'),
    'mask is text': (lambda images, masks: (masks / 'photo0.png').write_text('mask'), 'photo0.png'),
    'mask is JPEG': (lambda images, masks: (masks / 'photo0.png').rename(masks / 'photo0.jpg'), 'photo0.jpg.*JPEG'),
    'two images of one name': (lambda images, masks: shutil.copy(images / 'photo0.jpg', images / 'photo0.png'),
                               'photo0.jpg .*photo0.png'),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_files(run, images, masks, tmp_path, fault):
    change, named = FAULTS[fault]
    change(images, masks)
    with pytest.raises(ValueError, match=named):
        run(masks, 'pet', stuff=('floor',))
    assert not (tmp_path / 'out').exists()
    assert len(list(tmp_path.iterdir())) == 2


def test_all_bad_files_are_named(run, images, masks):
    cut(images / 'photo0.jpg')
    (masks / 'a/photo1.png').write_text('')
    with pytest.raises(ValueError, match='(?s)2 files.*(photo0.jpg|photo1.png).*(photo0.jpg|photo1.png)'):
        run(masks, 'pet')


@pytest.mark.parametrize(('options', 'named'), [
    (dict(classes=()), '--classes'),
    (dict(classes=('pet', 'car'), format='instance-masks'), '--classes.*pet, car'),
    (dict(classes=('pet',), stuff=('pet',)), '--stuff pet'),
    (dict(classes=('pet',), stuff=('floor', 'floor')), '--stuff .*floor'),
    (dict(classes=('pet',), stuff=('floor', 'wall')), '--stuff floor wall'),
    (dict(classes=('pet',), task='semantic'), "task is 'semantic'.*--stuff"),
    (dict(classes=('pet',), task='panoptic'), "task is 'panoptic'.*--stuff")])
def test_options(run, masks, options, named):
    with pytest.raises(ValueError, match=named):
        run(masks, *options.pop('classes'), **options)


def test_unknown_class_of_a_file(run, pictures, tmp_path):
    file = own_data.write_coco(tmp_path / 'data.json', pictures)
    with pytest.raises(ValueError, match='--classes dgo.* dog'):
        run(file, 'dgo')


def test_paths(images, tmp_path):
    for paths in ((images, tmp_path / 'nothing'), (tmp_path / 'nothing', None), (images / 'photo0.jpg', None)):
        with pytest.raises(ValueError, match='nothing|photo0.jpg'):
            find_sources(*paths)


@pytest.mark.parametrize(('name', 'text', 'named'), [
    ('data.json', '{', 'data.json'),
    ('data.json', '[]', 'data.json'),
    ('data.json', '{"annotations": [], "images": [], "categories": []}', 'data.json.*annotations'),
    ('data.xml', '<a/>', 'data.xml'),
    ('labels/photo0.txt', '5 0 0 0 1 1 1', 'photo0.txt, line 1: class 5'),
    ('labels/photo0.txt', '0 0 0 0 1 1 1\n0 a b c d e f', 'photo0.txt, line 2'),
    ('labels/photo0.json', '{"shapes": [{"points": []}]}', 'photo0.json.*label'),
    ('labels/photo0.json', '{"shapes": [{"label": "cat", "points": [[0]]}], "imageHeight": 40, "imageWidth": 60}',
     "photo0.json: shape 0, 'cat'"),
    ('labels/photo0.json', '{"shapes": [{"label": "cat"}], "imageHeight": 0, "imageWidth": 60}',
     'photo0.json.*imageHeight'),
    ('labels/photo0.json', '{"shapes": [], "imageHeight": 40, "imageWidth": 60}', 'labels.*object'),
    ('labels/other.json', '{"shapes": [], "imageHeight": 40, "imageWidth": 60}', 'labels')])
def test_annotation_files(run, tmp_path, name, text, named):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    if name in ('labels/photo0.txt', 'labels/photo0.json'):  # one other image, which is as it should be
        empty = '' if path.suffix == '.txt' else '{"shapes": [], "imageHeight": 44, "imageWidth": 60}'
        (path.parent / 'a').mkdir()
        (path.parent / f'a/photo1{path.suffix}').write_text(empty)
    with pytest.raises(ValueError, match=named):
        run(path if path.parent == tmp_path else path.parent, *(['cat'] if path.suffix == '.txt' else []))
    assert not (tmp_path / 'out').exists()


def test_what_has_no_area_is_counted(run, pictures, tmp_path):
    labels = own_data.write_yolo(tmp_path / 'labels', pictures)
    with (labels / 'photo0.txt').open('a') as file:
        file.write('0 0.5 0.5 0.1 0.1\n1 0.1 0.1 0.2\n1 0.1 0.1 0.2 0.2 0.3 0.1 0.4\n0 nan 0 0 1 1 1\n')
    notes = '\n'.join(run(labels).notes)
    assert 'box' in notes and 'odd' in notes and 'finite' in notes

    data = json.loads(own_data.write_coco(tmp_path / 'data.json', pictures).read_text())
    data['annotations'][0]['segmentation'] = []
    data['images'].append(dict(id=99, file_name='lost.jpg', height=4, width=4))
    (tmp_path / 'data.json').write_text(json.dumps(data))
    notes = '\n'.join(run(tmp_path / 'data.json', force=True).notes)
    assert '1 objects' in notes and 'lost.jpg' in notes


def test_binary_masks_are_pointed_out(run, pictures, tmp_path):
    masks = own_data.write_binary_masks(tmp_path / 'labels', pictures)
    assert any('--format binary-masks' in note for note in run(masks).notes)


def test_255_beside_objects_is_ignored(run, pictures, masks, tmp_path):
    for picture in pictures:
        ids = picture.ids()
        ids[:2] = 255
        own_data.write_png(masks / f'{picture.stem}.png', ids)
    assert any('255' in note for note in run(masks, 'pet', stuff=('floor',)).notes)
    for name, (ids, infos) in own_data.read_panoptic(tmp_path / 'out', 'train').items():
        assert (ids[:2] == 0).all() and (ids[2:] > 0).all()
        assert (own_data.read_labels(tmp_path / 'out', 'train', name)[:2] == 255).all()
        assert len(infos) == 5


def test_no_object_at_all(run, pictures, tmp_path):
    for picture in pictures:
        own_data.write_png(tmp_path / f'masks/{picture.stem}.png', np.zeros(picture.size, np.uint8))
    with pytest.raises(ValueError, match='masks: no image has an object of pet; look at'):
        run(tmp_path / 'masks', 'pet', stuff=('floor',))
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('write', [own_data.write_coco, own_data.write_labelme])
def test_size_comes_from_the_image(run, pictures, tmp_path, write):
    labels = write(tmp_path / ('data.json' if write is own_data.write_coco else 'labels'), pictures)
    expected = run(labels).counts
    for path in [labels] if labels.is_file() else labels.rglob('*.json'):
        data = json.loads(path.read_text())
        for record in data.get('images', [data]):
            record.update(dict.fromkeys(set(record) & {'height', 'width', 'imageHeight', 'imageWidth'}))
        path.write_text(json.dumps(data))
    prepared = run(labels, force=True)
    assert prepared.counts == expected and not prepared.notes


@pytest.mark.parametrize('write', [own_data.write_class_folders, own_data.write_label_maps, own_data.write_coco,
                                   own_data.write_yolo, own_data.write_labelme])
def test_images_that_are_not_read_are_named(run, images, pictures, tmp_path, write):
    labels = write(tmp_path / ('data.json' if write is own_data.write_coco else 'labels'), pictures)
    classes = 'xyz' if write is own_data.write_label_maps else ''
    (images / 'photo0.jpg').rename(images / 'photo0.HEIC')
    assert '1 .heic; save them' in str(run(labels, *classes).notes)
    for path in images.rglob('*.jpg'):
        path.rename(path.with_suffix('.avif'))
    with pytest.raises(ValueError, match='4 .avif, 1 .heic; save them'):
        run(labels, *classes, force=True)
