"""Names that differ in case, or in how macOS writes characters, name the same file."""

import json
import unicodedata

import own_data
import pytest


def normalise(form, *folders):
    for path in [path for folder in folders for path in folder.rglob('*photo0*')]:
        path.rename(path.with_name(unicodedata.normalize(form, f'\xe4{path.name}')))


@pytest.mark.parametrize('write', [own_data.write_yolo, own_data.write_labelme, own_data.write_class_folders])
def test_composition_of_characters(run, images, pictures, tmp_path, write):
    labels = write(tmp_path / 'labels', pictures)
    normalise('NFC', images)
    normalise('NFD', labels)
    prepared = run(labels)
    assert prepared.notes == [] and sum(prepared.images.values()) == len(pictures)


@pytest.mark.parametrize('write', [own_data.write_coco, own_data.write_panoptic])
def test_names_in_a_file(run, images, pictures, tmp_path, write):
    file = write(tmp_path / 'data.json', pictures)
    data = json.loads(file.read_text())
    data['images'][0]['file_name'] = 'a\u0308photo0.jpg'
    data['images'][2]['file_name'] = 'PHOTO2.JPG'
    for annotation in data['annotations']:
        if annotation.get('file_name') == 'photo2_panoptic.png':
            annotation['file_name'] = 'Photo2_panoptic.PNG'
    file.write_text(json.dumps(data), encoding='utf-8-sig')
    normalise('NFC', images)
    prepared = run(file)
    assert prepared.notes == [] and sum(prepared.images.values()) == len(pictures)
