"""Which images are for training: by a seed, or as folders, files and options say."""

import shutil
from dataclasses import replace
from pathlib import Path

import own_data
import pytest

from knet_plugin.datasets.prepare import Options, find_sources, prepare


def names(root, split):
    return sorted(str(path.relative_to(root / 'images' / split)) for path in (root / 'images' / split).rglob('*.jpg'))


def test_seed_decides(run, masks, tmp_path):
    drawn = {}
    for seed in (0, 1, 2, 3, 0):
        run(masks, 'pet', val=0.4, seed=seed, force=True)
        val = names(tmp_path / 'out', 'val')
        assert len(val) == 2 and len(names(tmp_path / 'out', 'train')) == 3
        assert drawn.setdefault(seed, val) == val
    assert len({tuple(val) for val in drawn.values()}) > 1


@pytest.mark.parametrize(('val', 'number'), [(0.001, 1), (0.999, 4), (0.5, 2)])
def test_each_split_has_an_image(run, masks, tmp_path, val, number):
    assert run(masks, 'pet', val=val).images == {'train': 5 - number, 'val': number}


def test_one_image_is_too_few(tmp_path):
    picture = own_data.make_pictures(1)
    images = own_data.write_images(tmp_path / 'images', picture)
    labels = own_data.write_labelme(tmp_path / 'labels', picture)
    with pytest.raises(ValueError, match='photo0.jpg.*validation'):
        prepare(find_sources(images, labels), tmp_path / 'out', Options())


@pytest.fixture
def divided(tmp_path):
    """Images and labelme files as root/{train,val}: 3 and 2."""
    pictures = own_data.make_pictures()
    parts = {'train': pictures[:3], 'val': pictures[3:]}
    return parts, tmp_path / 'data', *(sorted(each.name for each in part) for part in parts.values())


@pytest.mark.parametrize('layout', ['images/{} + labels/{}', '{}/images + {}/labels', '{}'])
@pytest.mark.parametrize('val', ['val', 'valid'])
def test_divided_folders_stay_divided(divided, tmp_path, layout, val):
    parts, root, train_names, val_names = divided
    for split, part in parts.items():
        images, _, labels = layout.replace('{}', val if split == 'val' else split).partition(' + ')
        own_data.write_images(root / images, part)
        own_data.write_labelme(root / (labels or images), part)
    prepare(find_sources(root, None), tmp_path / 'out', Options())
    assert names(tmp_path / 'out', 'train') == train_names
    assert names(tmp_path / 'out', 'val') == val_names


@pytest.mark.parametrize('key', ['coco', 'masks'])
def test_folders_of_images_divide(divided, tmp_path, key):
    """Images in folders, but one annotation file or folder for all."""
    parts, _, train_names, val_names = divided
    for split, part in parts.items():
        own_data.write_images(tmp_path / 'images' / split, part)
    pictures = [*parts['train'], *parts['val']]
    if key == 'coco':
        annotations, classes = own_data.write_coco(tmp_path / 'a.json', pictures), ()
    else:
        flat = [replace(picture, name=Path(picture.name).name) for picture in pictures]
        annotations, classes = own_data.write_label_maps(tmp_path / 'maps', flat), (*own_data.CLASSES, own_data.STUFF)
    prepared = prepare(find_sources(tmp_path / 'images', annotations), tmp_path / 'out', Options(classes))
    assert [note for note in prepared.notes if 'values of' not in note] == []
    assert names(tmp_path / 'out', 'train') == train_names
    assert names(tmp_path / 'out', 'val') == val_names


def test_divided_coco_files_stay_divided(divided, tmp_path):
    parts, root, train_names, val_names = divided
    root.mkdir()
    for split, part in parts.items():
        own_data.write_images(tmp_path / 'images', part)
        own_data.write_coco(root / f'instances_{split}2017.json', part)
    prepare(find_sources(tmp_path / 'images', root), tmp_path / 'out', Options())
    assert names(tmp_path / 'out', 'train') == train_names
    assert names(tmp_path / 'out', 'val') == val_names


def test_only_folder_of_images_is_no_part_of_names(images, pictures, tmp_path):
    shutil.move(images, tmp_path / 'photos/train')
    file = own_data.write_coco(tmp_path / 'train.json', pictures)
    prepare(find_sources(tmp_path / 'photos', file), tmp_path / 'out', Options())
    found = names(tmp_path / 'out', 'train') + names(tmp_path / 'out', 'val')
    assert sorted(found) == sorted(picture.name for picture in pictures)
