import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric, CocoPanopticMetric
from odd_data import CATEGORIES, NAMES, SIZE, each_object, odd_data, segment_map, without_isthing

from knet_plugin.datasets.coco_file import read_coco
from knet_plugin.datasets.metrics import InstanceMetric, PanopticMetric
from knet_plugin.datasets.panoptic import panoptic_metainfo
from knet_plugin.datasets.panoptic_png import read_segment_ids

SAMPLES = Path(__file__).resolve().parents[3] / 'shared/real_samples'
META = dict(classes=NAMES, thing_classes=NAMES[:2], stuff_classes=NAMES[2:])
LABELS = {3: 2, 1: 0, 9: 3, 4: 1}  # of the category ids
OFFSET = 1000


def panoptic_prediction(index: int, shift: int = 0) -> torch.Tensor:
    """The ground truth of an image of ``odd_data``, moved down, (1, H, W); void where it is unlabelled."""
    ids, categories = segment_map(index)
    labels = {number: LABELS[category] + (OFFSET * number if category in (1, 4) else 0)
              for number, category in categories.items()}
    map_ = np.vectorize(lambda number: labels.get(number, len(NAMES)))(np.roll(ids, shift, axis=0))
    return torch.from_numpy(map_)[None]


def samples(root: Path, shift: int = 0) -> list[dict]:
    """Data samples of the images of ``odd_data``, with panoptic predictions."""
    images = json.loads((root / 'panoptic.json').read_text())['images']
    return [dict(img_id=image['id'], img_path=str(root / image['file_name']), ori_shape=SIZE,
                 pred_panoptic_seg=dict(sem_seg=panoptic_prediction(index, shift)))
            for index, image in enumerate(images)]


def evaluate(metric: Any, items: list[dict], meta: dict = META) -> dict[str, float]:
    metric.dataset_meta = meta
    for item in items:
        metric.process({}, [item])
    return metric.evaluate(len(items))


def panoptic_quality(root: Path, shift: int = 0, **options: Any) -> dict[str, float]:
    metric = PanopticMetric(ann_file=str(root / 'panoptic.json'), seg_prefix=str(root / 'png'), **options)
    return {key.split('/')[1]: value for key, value in evaluate(metric, samples(root, shift)).items()}


@pytest.mark.parametrize('options', [
    {}, dict(image_name='images/{}.jpeg'), dict(image_name='{}.png', png_name='sub/{}_pan.png'),
    dict(edit=each_object(lambda each: each.pop('iscrowd'))), dict(edit=each_object(lambda each: each.pop('area'))),
    dict(edit=each_object(lambda each: each.update(area=7))), dict(edit=without_isthing),
])
def test_perfect_prediction(tmp_path, options):
    figures = panoptic_quality(odd_data(tmp_path, **options))
    assert {figures[key] for key in ('PQ', 'PQ_th', 'PQ_st')} == {100}


@pytest.mark.parametrize('shift', [2, 5, 9])
def test_same_figures_as_mmdet(tmp_path, shift):
    """With the categories in the order of the labels."""
    def sort(content):
        content['categories'].sort(key=lambda category: LABELS[category['id']])
        for annotation in content['annotations']:
            for each in annotation.get('segments_info', ()):
                each['iscrowd'] = int(each['id'] == 5)

    root = odd_data(tmp_path, image_name='images/{}.jpg', edit=sort)
    options = dict(ann_file=str(root / 'panoptic.json'), seg_prefix=str(root / 'png'))
    ours, stock = (evaluate(kind(**options), samples(root, shift)) for kind in (PanopticMetric, CocoPanopticMetric))
    assert ours == pytest.approx(stock) and 0 < ours['coco_panoptic/PQ'] < 100


def test_swapped_label_is_wrong(tmp_path):
    root = odd_data(tmp_path)
    items = samples(root)
    for item in items:
        item['pred_panoptic_seg']['sem_seg'][:] = torch.where(item['pred_panoptic_seg']['sem_seg'] == 2, 3, 2)
    metric = PanopticMetric(ann_file=str(root / 'panoptic.json'), seg_prefix=str(root / 'png'))
    assert evaluate(metric, items)['coco_panoptic/PQ_st'] == 0


def test_prediction_is_not_modified(tmp_path):
    root = odd_data(tmp_path)
    metric = PanopticMetric(ann_file=str(root / 'panoptic.json'), seg_prefix=str(root / 'png'))
    items = samples(root)
    evaluate(metric, items)
    for index, item in enumerate(items):
        map_ = item['pred_panoptic_seg']['sem_seg']
        assert torch.equal(map_, panoptic_prediction(index)) and (map_ == len(NAMES)).any()


def test_pixels_of_no_listed_segment_are_void(tmp_path):
    """A prediction there is no mistake."""
    def drop(content):
        for annotation in content['annotations']:
            if 'segments_info' in annotation:
                annotation['segments_info'] = [each for each in annotation['segments_info'] if each['id'] != 4]

    assert panoptic_quality(odd_data(tmp_path, edit=drop))['PQ'] == 100


@pytest.mark.parametrize(('numbers', 'expected'), [([1, 3], dict(PQ=100, PQ_th=0, PQ_st=100)), ([], dict(PQ=0))])
def test_no_things_and_no_images_with_segments(tmp_path, numbers, expected):
    """mmdet divides by zero."""
    def keep(content):
        content['images'] = [content['images'][i] for i in numbers or [0]]
        kept = [each for each in content['annotations'] if each['image_id'] in [10 + i for i in numbers or [0]]]
        content['annotations'] = [dict(each, segments_info=each['segments_info'] if numbers else []) for each in kept
                                  if 'segments_info' in each]

    root = odd_data(tmp_path, edit=keep)
    metric = PanopticMetric(ann_file=str(root / 'panoptic.json'), seg_prefix=str(root / 'png'), classwise=True)
    items = [dict(item, pred_panoptic_seg=dict(sem_seg=panoptic_prediction(1) if numbers else torch.full(
        (1, *SIZE), len(NAMES)))) for item in samples(root)]
    figures = evaluate(metric, items)
    assert {key: figures[f'coco_panoptic/{key}'] for key in expected} == expected


def test_image_that_is_not_annotated(tmp_path):
    root = odd_data(tmp_path, edit=lambda content: content['annotations'].pop(1))
    with pytest.raises(ValueError, match=r'panoptic\.json.* 11'):
        panoptic_quality(root)


@pytest.mark.parametrize('content', [np.zeros((3, 4, 3), np.uint8), None])
def test_png_that_does_not_fit(tmp_path, content):
    root = odd_data(tmp_path)
    (root / 'png/1.png').write_bytes(b'' if content is None else cv2.imencode('.png', content)[1].tobytes())
    with pytest.raises(ValueError, match=r'png/1\.png'):
        panoptic_quality(root)


@pytest.mark.parametrize('format_only', [True, False])
def test_result_files(tmp_path, format_only):
    root = odd_data(tmp_path / 'data', image_name='images/{}.jpeg', png_name='sub/{}.png')
    figures = panoptic_quality(root, outfile_prefix=str(tmp_path / 'out/results'), format_only=format_only)
    assert figures == {} if format_only else figures['PQ'] == 100
    content = json.loads((tmp_path / 'out/results.panoptic.json').read_text())
    assert [each['file_name'] for each in content['annotations']] == [f'sub/{i}.png' for i in range(4)]
    for annotation in content['annotations']:
        assert (tmp_path / 'out/results.panoptic' / annotation['file_name']).is_file()
        for segment in annotation['segments_info']:
            assert segment['isthing'] == next(each['isthing'] for each in CATEGORIES
                                              if each['id'] == segment['category_id'])


def instance_samples(root: Path) -> list[dict]:
    """Data samples with the objects of ``odd_data`` as predictions."""
    items = samples(root)
    for index, item in enumerate(items):
        ids, categories = segment_map(index)
        found = [number for number, category in categories.items() if category in (1, 4)]
        masks = torch.from_numpy(np.array([ids == number for number in found]).reshape(-1, *SIZE))
        item['pred_instances'] = dict(
            masks=masks, labels=torch.tensor([LABELS[categories[number]] for number in found], dtype=torch.long),
            scores=torch.ones(len(found)), bboxes=torch.zeros(len(found), 4))
    return items


@pytest.mark.parametrize('meta', [META, dict(classes=NAMES[:2])])
@pytest.mark.parametrize('options', [
    {}, dict(edit=each_object(lambda each: each.pop('iscrowd'))),
    dict(edit=lambda content: content['categories'].reverse()),
    dict(edit=lambda content: content['annotations'].append(
        dict(id=999, image_id=10, category_id=1, segmentation=[[]], area=9, bbox=[1, 1, 3, 3], iscrowd=0))),
])
def test_perfect_instances(tmp_path, options, meta):
    root = odd_data(tmp_path, **options)
    metric = InstanceMetric(ann_file=str(root / 'instances.json'), metric='segm', classwise=True)
    figures = evaluate(metric, instance_samples(root), meta)
    assert figures['coco/segm_mAP'] == figures['coco/dog_precision'] == 1
    assert 'coco/grass_precision' not in figures


def test_same_instance_figures_as_mmdet(tmp_path):
    root = odd_data(tmp_path)
    items = instance_samples(root)
    for item in items:
        item['pred_instances']['masks'] = item['pred_instances']['masks'].roll(5, dims=1)
    ours, stock = (evaluate(kind(ann_file=str(root / 'instances.json'), metric='segm'), items)
                   for kind in (InstanceMetric, CocoMetric))
    assert ours == stock and 0 < ours['coco/segm_mAP'] < 1


def test_label_of_a_class_that_the_file_lacks(tmp_path):
    root = odd_data(tmp_path, edit=lambda content: content['annotations'].clear() or content['categories'].pop())
    figures = evaluate(InstanceMetric(ann_file=str(root / 'instances.json'), metric='segm', classwise=True),
                       instance_samples(root), META)
    assert figures['coco/segm_mAP'] == -1


def test_file_without_objects(tmp_path):
    root = odd_data(tmp_path, edit=lambda content: content.pop('annotations'))
    figures = evaluate(InstanceMetric(ann_file=str(root / 'instances.json'), metric=['segm', 'bbox']),
                       instance_samples(root))
    assert figures['coco/segm_mAP'] == figures['coco/bbox_mAP'] == -1


def test_no_prediction(tmp_path):
    root = odd_data(tmp_path)
    items = instance_samples(root)
    for item in items:
        item['pred_instances'] = {key: value[:0] for key, value in item['pred_instances'].items()}
    figures = evaluate(InstanceMetric(ann_file=str(root / 'instances.json'), metric='segm'), items)
    assert figures['coco/segm_mAP'] == figures['coco/segm_mAP_50'] == 0


@pytest.mark.skipif(not SAMPLES.is_dir(), reason='no real images')
def test_same_figures_as_mmdet_on_coco():
    folder = SAMPLES / 'coco/annotations'
    data = read_coco(str(folder / 'panoptic.json')).data
    meta = panoptic_metainfo(data['categories'], {}, '')
    labels = {category['id']: meta['classes'].index(category['name']) for category in data['categories']}
    items = []
    for image, annotation in zip(data['images'], data['annotations'], strict=True):
        shape = (image['height'], image['width'])
        ids = np.roll(read_segment_ids(str(folder / 'panoptic' / annotation['file_name'])), 6, axis=1)
        map_ = np.full(shape, len(meta['classes']))
        for i, segment in enumerate(annotation['segments_info'], start=1):
            label = labels[segment['category_id']]
            map_[ids == segment['id']] = label + (i * OFFSET if label < 80 else 0)
        items.append(dict(img_id=image['id'], img_path=image['file_name'], ori_shape=shape,
                          pred_panoptic_seg=dict(sem_seg=torch.from_numpy(map_)[None])))
    options = dict(ann_file=str(folder / 'panoptic.json'), seg_prefix=f'{folder}/panoptic/')
    ours, stock = (evaluate(kind(**options), items, meta) for kind in (PanopticMetric, CocoPanopticMetric))
    assert ours == pytest.approx(stock) and 0 < ours['coco_panoptic/PQ'] < 100
