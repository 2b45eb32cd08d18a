import json
from typing import Any

import numpy as np
import pytest
from mmdet.datasets import CocoPanopticDataset
from mmdet.datasets.api_wrappers import COCOPanoptic
from mmengine.registry import DATASETS, DefaultScope
from odd_data import CATEGORIES, NAMES, SIZE, each_object, odd_data, segment_map, without_isthing

from knet_plugin.datasets.panoptic import PanopticDataset, panoptic_metainfo
from knet_plugin.datasets.shapes import CLASSES, STUFF_CLASSES, THING_CLASSES

PIPELINE = [dict(type='knet_plugin.LoadImageFromFile'), dict(type='knet_plugin.LoadPanopticAnnotations'),
            dict(type='PackDetInputs')]
LABELS = {3: 2, 1: 0, 9: 3, 4: 1}  # of the category ids


def load(root, **options: Any) -> PanopticDataset:
    cfg = dict(type='knet_plugin.PanopticDataset', data_root=f'{root}/', ann_file='panoptic.json',
               data_prefix=dict(img='', seg='png/'), pipeline=PIPELINE) | options
    with DefaultScope.overwrite_default_scope('mmdet'):
        return DATASETS.build(cfg)


def check_content(dataset: PanopticDataset, number: int = 4) -> None:
    """Labels, masks and boxes are those of ``odd_data``."""
    assert len(dataset) == number
    for index in range(number):
        sample = dataset[index]['data_samples']
        ids, categories = segment_map(index)
        labels = np.full(SIZE, 255)
        for segment, category in categories.items():
            labels[ids == segment] = LABELS[category]
        assert np.array_equal(sample.gt_sem_seg.sem_seg[0], labels)
        things = [segment for segment, category in categories.items() if category in (1, 4)]
        assert sample.gt_instances.labels.tolist() == [LABELS[categories[segment]] for segment in things]
        for mask, box, segment in zip(sample.gt_instances.masks.masks, sample.gt_instances.bboxes.tensor.tolist(),
                                      things, strict=True):
            assert np.array_equal(mask, ids == segment)
            rows, columns = np.nonzero(mask)
            assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_same_as_mmdet(shapes):
    metainfo = dict(classes=CLASSES, thing_classes=THING_CLASSES, stuff_classes=STUFF_CLASSES)
    options = dict(ann_file='annotations/panoptic_train.json', metainfo=metainfo,
                   data_prefix=dict(img='train/', seg='annotations/panoptic_train/'))
    ours, stock = load(shapes, **options), load(shapes, type='CocoPanopticDataset', **options)
    assert ours.metainfo | dict(palette=None) == stock.metainfo | dict(palette=None)
    for i in range(len(stock)):
        assert ours.get_data_info(i) == stock.get_data_info(i)


METAINFO = [
    None,
    dict(classes=NAMES),
    dict(classes=['sky', 'cat', 'grass', 'dog']),
    dict(thing_classes=['cat', 'dog'], stuff_classes=['sky', 'grass']),
    dict(classes=['sky', 'cat', 'grass', 'dog'], thing_classes=['dog', 'cat'], stuff_classes=['grass', 'sky']),
    dict(thing_classes=['cat', 'dog']),
    dict(stuff_classes=['sky', 'grass']),
]


@pytest.mark.parametrize('metainfo', METAINFO)
def test_categories_in_any_order(tmp_path, metainfo):
    dataset = load(odd_data(tmp_path), metainfo=metainfo)
    assert dataset.metainfo['classes'] == NAMES
    assert (dataset.metainfo['thing_classes'], dataset.metainfo['stuff_classes']) == (NAMES[:2], NAMES[2:])
    check_content(dataset)


@pytest.mark.parametrize('metainfo', METAINFO[3:])
def test_categories_without_isthing(tmp_path, metainfo):
    root = odd_data(tmp_path, edit=without_isthing)
    check_content(load(root, metainfo=metainfo))


def test_things_are_unknown(tmp_path):
    root = odd_data(tmp_path, edit=without_isthing)
    with pytest.raises(ValueError, match=r"panoptic\.json.*'sky'.*isthing.*thing_classes"):
        load(root)


@pytest.mark.parametrize('write', [bool, str, float, lambda isthing: ['false', 'True'][isthing]])
def test_isthing_of_other_types(tmp_path, write):
    def edit(content):
        for category in content['categories']:
            category['isthing'] = write(category['isthing'])

    dataset = load(odd_data(tmp_path, edit=edit))
    assert dataset.metainfo['stuff_classes'] == ('sky', 'grass')


def test_isthing_against_metainfo(tmp_path):
    with pytest.raises(ValueError, match=r"panoptic\.json.*'grass'.*isthing=0.*thing_classes"):
        load(odd_data(tmp_path), metainfo=dict(thing_classes=['cat', 'dog', 'grass']))


def test_classes_of_another_data_set(tmp_path):
    with pytest.raises(ValueError, match=r"metainfo\.classes .*'person'.*panoptic\.json.*'sky'"):
        load(odd_data(tmp_path), metainfo=dict(classes=['person', 'car']))


def test_colours_follow_classes():
    colours = [(1, 0, 0), (2, 0, 0), (3, 0, 0), (4, 0, 0)]
    expected = [colours[1], colours[3], colours[0], colours[2]]
    metainfo = dict(classes=[each['name'] for each in CATEGORIES], palette=colours)
    assert panoptic_metainfo(CATEGORIES, metainfo, '')['palette'] == expected
    coloured = [dict(each, color=list(colour)) for each, colour in zip(CATEGORIES, colours, strict=True)]
    for metainfo in ({}, dict(palette=CocoPanopticDataset.METAINFO['palette'])):
        assert panoptic_metainfo(coloured, metainfo, '')['palette'] == expected
    assert 'palette' not in panoptic_metainfo(CATEGORIES, {}, '')
    assert panoptic_metainfo(CATEGORIES, dict(palette='random'), '')['palette'] == 'random'


def test_classes_of_coco():
    coco = CocoPanopticDataset.METAINFO
    categories = [dict(id=i, name=name, isthing=int(i < 80)) for i, name in enumerate(coco['classes'])]
    assert panoptic_metainfo(categories, dict(palette=coco['palette']), '') == coco


@pytest.mark.parametrize(('image_name', 'png_name'), [
    ('images/{}.jpeg', '{}.png'), ('images/{}.png', '{}.png'), ('images/{}.JPG', '{}_pan.png'),
    ('a.b/{}.bmp', 'sub/deep/{}.png'), ('city/{}_leftImg8bit.png', '{}_gtFine_panoptic.png')])
def test_names_of_files(tmp_path, image_name, png_name):
    check_content(load(odd_data(tmp_path, image_name=image_name, png_name=png_name)))


@pytest.mark.parametrize('key', ['iscrowd', 'bbox', 'area'])
def test_missing_values(tmp_path, key):
    check_content(load(odd_data(tmp_path, edit=each_object(lambda segment: segment.pop(key)))))


def test_annotation_without_file_name(tmp_path):
    def edit(content):
        for annotation in content['annotations']:
            annotation.pop('file_name', None)

    check_content(load(odd_data(tmp_path, image_name='{}.jpeg', edit=edit)))


def test_string_ids(tmp_path):
    def edit(content):
        for field, key in (('images', 'id'), ('annotations', 'image_id')):
            for record in content[field]:
                record[key] = f'aachen_{record[key]}'

    check_content(load(odd_data(tmp_path, edit=edit)))


def test_crowds_are_no_objects(tmp_path):
    def crowd(segment):
        segment['iscrowd'] = int(segment['id'] == 4)

    sample = load(odd_data(tmp_path, edit=each_object(crowd)))[0]['data_samples']
    assert sample.gt_instances.labels.tolist() == [0, 0]
    assert (sample.gt_sem_seg.sem_seg[0][segment_map(0)[0] == 4] == 1).all()


def test_images_of_stuff_alone_are_kept(tmp_path, log):
    def edit(content):
        if 'segments_info' in content['annotations'][0]:
            content['annotations'][3]['segments_info'] = []

    dataset = load(odd_data(tmp_path, edit=edit), filter_cfg=dict(filter_empty_gt=True, min_size=32))
    assert [len(dataset.get_data_info(i)['instances']) for i in range(len(dataset))] == [3, 0, 3]
    assert ['1 of 4 images' in line for line in log] == [True]


def test_images_without_annotation(tmp_path, log):
    dataset = load(odd_data(tmp_path, edit=lambda content: content['annotations'].pop(1)))
    assert [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))] == [10, 12, 13]
    assert ['1 of 4 images' in line for line in log] == [True]


def test_test_set_without_annotations(tmp_path):
    dataset = load(odd_data(tmp_path, edit=lambda content: content.pop('annotations')), test_mode=True)
    assert len(dataset) == 4 and dataset.get_data_info(0)['seg_map_path'] is None
    assert 'gt_sem_seg' not in dataset[0]['data_samples']


def test_classes_that_are_a_part_of_the_file(tmp_path):
    """Other segments are void."""
    dataset = load(odd_data(tmp_path), metainfo=dict(classes=['grass', 'dog']))
    semantic = dataset[0]['data_samples'].gt_sem_seg.sem_seg[0].numpy()
    ids = segment_map(0)[0]
    assert dataset.metainfo['classes'] == ('dog', 'grass')
    assert np.array_equal(semantic, np.select([ids == 4, ids == 2], [0, 1], 255))


def test_instance_file(tmp_path):
    with pytest.raises(ValueError, match=r'instances\.json.*knet_plugin\.InstanceDataset'):
        load(odd_data(tmp_path), ann_file='instances.json')


def test_work_grows_linearly_with_the_images(tmp_path, monkeypatch):
    """mmdet looks at every image with the same segment ids for each image."""
    root = odd_data(tmp_path)
    content = json.loads((root / 'panoptic.json').read_text())
    image, annotation = content['images'][0], content['annotations'][0]
    calls = []
    parse = CocoPanopticDataset.parse_data_info
    monkeypatch.setattr(CocoPanopticDataset, 'parse_data_info',
                        lambda self, raw: calls.append(len(raw['raw_ann_info'])) or parse(self, raw))
    monkeypatch.setattr(COCOPanoptic, 'createIndex', None)
    for number in (100, 200):
        content['images'] = [dict(image, id=i) for i in range(number)]
        content['annotations'] = [dict(annotation, image_id=i) for i in range(number)]
        (root / 'panoptic.json').write_text(json.dumps(content))
        calls.clear()
        assert len(load(root)) == number
        assert sum(calls) == len(annotation['segments_info']) * number


def test_a_class_that_is_no_category(tmp_path):
    with pytest.raises(ValueError, match=r"panoptic\.json.*'dgo'.*no category"):
        load(odd_data(tmp_path), metainfo=dict(classes=['cat', 'dgo']))


def test_label_255_is_void(tmp_path):
    def edit(content):
        content['categories'] += [dict(id=100 + i, name=f'c{i}', isthing=0) for i in range(252)]

    with pytest.raises(ValueError, match=r'panoptic\.json: 256 classes, but label 255'):
        load(odd_data(tmp_path, edit=edit))
