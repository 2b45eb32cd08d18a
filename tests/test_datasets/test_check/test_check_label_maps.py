"""Faults of label maps, and their census."""

import cv2
import numpy as np
import pytest
from check_data_files import CLASSES, label_map, messages, semantic_config, write_images, write_maps
from PIL import Image

from knet_plugin.datasets.check import check_config


@pytest.fixture
def root(tmp_path):
    write_images(tmp_path / 'images')
    write_maps(tmp_path / 'labels', label_map(0, 1))
    return tmp_path


def test_good_data(root):
    report = check_config(semantic_config(root), ('train', ))
    assert (report.errors, report.warnings) == ([], [])
    assert report.census[0].pixels == dict(cat=3 * 800, dog=3 * 800)
    assert report.census[0].ignored == 0
    assert '50.00%' in report.text()


# Values of the label maps and options of the data set -> words of errors, words of warnings.
MAPS = {
    'binary 255': ([0, 255], {}, ['255 is ignored', "'dog'", '0: 50'], []),
    'only 255': ([255], {}, ['no pixel has a class', '255'], []),
    'three classes, one as 255': ([0, 1, 255], dict(num_classes=3), [], ["'sky'", '255']),
    'reduced zero': ([0, 1], dict(reduce_zero_label=True), [], ['reduce_zero_label', 'dog', '0: 50']),
    'reduced to nothing': ([0], dict(reduce_zero_label=True), ['no pixel has a class'], []),
    'not reduced': ([0, 1, 2], {}, ['2', '0 .. 1', '3 label maps'], []),
    'reduced, too many': ([1, 2, 3], dict(reduce_zero_label=True), ['reduce_zero_label', '3'], []),
    'class without pixels': ([0, 1], dict(num_classes=4), [], ['2 of 4 classes never occur', 'sky, sea']),
    '128 for an object': ([0, 128], {}, ['128'], []),
}


@pytest.mark.parametrize('name', MAPS)
def test_values(root, name):
    values, options, errors, warnings = MAPS[name]
    write_maps(root / 'labels', label_map(*values))
    report = check_config(semantic_config(root, **options), ('train', ))
    assert bool(report.errors) == bool(errors)
    assert all(word in messages(report.errors) for word in errors)
    assert all(word in messages(report.warnings) for word in warnings)


@pytest.mark.parametrize(('values', 'wrong'), [((0, 300), '300'), ((0, 1, 256), '256'), ((0, 200), None)])
def test_deep_label_maps(root, values, wrong):
    write_maps(root / 'labels', label_map(*values, dtype=np.uint16))
    classes = [str(i) for i in range(201)]
    cfg = semantic_config(root, metainfo=dict(classes=classes))
    cfg.model = dict(decode_head=dict(num_classes=201))
    found = messages(check_config(cfg, ('train', )).errors)
    assert (wrong in found and '3 label maps' in found and '8 bits' in found) if wrong else not found


def test_ignored_share(root):
    write_maps(root / 'labels', label_map(0, 1, 255, 255))
    assert check_config(semantic_config(root), ('train', )).census[0].ignored == 0.5


def test_palette_images_hold_indices(root):
    for i in range(3):
        image = Image.fromarray(label_map(0, 1), 'P')
        image.putpalette([0, 0, 0, 255, 0, 0])
        image.save(root / f'labels/{i}.png')
    assert check_config(semantic_config(root), ('train', )).errors == []


def colours(root):
    cv2.imwrite(str(root / 'labels/1.png'), np.zeros((40, 40, 3), np.uint8))


def broken(root):
    (root / 'labels/1.png').write_bytes(b'no image')


def missing(root):
    (root / 'labels/1.png').unlink()


def other_suffix(root):
    for i in range(3):
        (root / f'images/{i}.jpg').rename(root / f'images/{i}.jpeg')


def another_size(root):
    cv2.imwrite(str(root / 'labels/1.png'), label_map(0, 1)[:, :30])


def turned_image(root):
    exif = Image.Exif()
    exif[274] = 6  # shown as 40 x 20, saved as 20 x 40
    Image.new('RGB', (20, 40)).save(root / 'images/1.jpg', exif=exif)
    cv2.imwrite(str(root / 'labels/1.png'), label_map(0, 1)[:, :20])


def no_maps(root):
    (root / 'labels').rename(root / 'masks')


@pytest.mark.parametrize(('damage', 'words'), [
    (colours, ['1 label maps have 3 channels', '1.png']), (broken, ['1.png']),
    (missing, ['1 of 3 label maps', '1.png']), (another_size, ['1 label maps', '1.png is (30, 40), not (40, 40)']),
    (turned_image, ['1 label maps', '1.png is (20, 40), not (40, 20)']),
    (other_suffix, ["img_suffix='.jpg'", '3 with .jpeg']), (no_maps, ['seg_map_path', 'labels']),
])
def test_files(root, damage, words):
    damage(root)
    found = messages(check_config(semantic_config(root)).errors)
    assert all(word in found for word in words)


@pytest.mark.parametrize('section', ['train', 'val'])
def test_maps_of_another_size_than_their_images(root, section):
    write_maps(root / 'small', label_map(0, 1)[:30])
    cfg = semantic_config(root)
    cfg[f'{section}_dataloader'].dataset.data_prefix.seg_map_path = 'small'
    error, = check_config(cfg).errors
    assert error.file == str(root / 'small') and '3 label maps' in error.message
    cfg[f'{section}_dataloader'].dataset.pipeline[0].imdecode_backend = 'tifffile'  # may know other sizes
    assert check_config(cfg).errors == []


def test_some_images_with_another_suffix(root):
    (root / 'images/1.jpg').rename(root / 'images/1.png')
    report = check_config(semantic_config(root))
    assert report.errors == []
    assert '1 with .png' in messages(report.warnings)


@pytest.mark.parametrize('where', ['decode_head', 'auxiliary_head'])
def test_number_of_classes(root, where):
    cfg = semantic_config(root)
    head = cfg.model[where].get('kernel_generate_head', cfg.model[where])
    head.num_classes = 19
    assert 'num_classes=19' in messages(check_config(cfg).errors)
    assert where in messages(check_config(cfg).errors)


def test_no_classes(root):
    assert 'classes' in messages(check_config(semantic_config(root, metainfo=None, test_mode=True)).errors)


def test_classes_of_a_known_data_set(root):
    cfg = semantic_config(root, type='ADE20KDataset', metainfo=None)
    assert 'num_classes=2' in messages(check_config(cfg, ('train', )).errors)
    cfg.train_dataloader.dataset.update(metainfo=dict(classes=CLASSES), reduce_zero_label=False)
    assert 'sky' in messages(check_config(cfg, ('train', )).errors)  # its data set refuses other names


def test_many_maps_are_sampled(root):
    write_maps(root / 'labels', label_map(0))
    write_maps(root / 'labels', label_map(0, 1), 1)
    report = check_config(semantic_config(root), ('train', ), limit=2)
    assert report.census[0].remarks
    assert report.census[0].images == 3
    assert sum(report.census[0].pixels.values()) == 2 * 1600


def test_maps_of_the_validation_alone(root):
    write_maps(root / 'val', label_map(0, 255))
    cfg = semantic_config(root)
    cfg.val_dataloader.dataset.data_prefix.seg_map_path = 'val'
    error, = check_config(cfg).errors
    assert error.file == str(root / 'val')
    assert "'dog'" in error.message


def test_a_class_in_the_training_maps_alone(root):
    cfg = semantic_config(root, num_classes=3)
    write_maps(root / 'labels', label_map(0, 1, 2))
    write_maps(root / 'val', label_map(0, 2))
    cfg.val_dataloader.dataset.data_prefix.seg_map_path = 'val'
    warning, = check_config(cfg).warnings
    assert warning.file == str(root / 'val') and '1 classes' in warning.message and ': dog' in warning.message
    assert check_config(cfg, limit=2).warnings == []  # another map may have it


def test_reduce_zero_label_of_the_loading_differs_from_the_data_set(root):
    cfg = semantic_config(root)
    cfg.train_dataloader.dataset.pipeline[1].reduce_zero_label = True
    error, = check_config(cfg, ('train', )).errors
    assert 'reduce_zero_label' in error.message


@pytest.mark.parametrize(('number', 'loader', 'fine'), [
    (255, dict(type='LoadAnnotations'), True), (256, dict(type='LoadAnnotations'), False),
    (256, dict(type='knet_plugin.LoadLabels'), False),
    (256, dict(type='knet_plugin.LoadLabels', ignore_index=65535), True)])
def test_label_255_is_void(root, number, loader, fine):
    classes = [str(i) for i in range(number)]
    cfg = semantic_config(root, metainfo=dict(classes=classes), pipeline=[dict(type='LoadImageFromFile'), loader])
    cfg.model = dict(decode_head=dict(num_classes=number))
    assert ('256 classes, but label 255' not in messages(check_config(cfg, ('train', )).errors)) == fine


@pytest.mark.parametrize(('options', 'fine'), [({}, True), (dict(ignore_index=0), False)])
def test_the_metric_ignores_other_pixels_than_the_data(root, options, fine):
    cfg = semantic_config(root)
    cfg.val_evaluator = [dict(type='mmseg.IoUMetric', **options)]
    report = check_config(cfg)
    assert report.errors == [] and [
        'val_evaluator: ignore_index=0' in each.message and 'label 255' in each.message
        for each in report.warnings] == [True] * (not fine)
    assert check_config(cfg, ('train', )).warnings == []
