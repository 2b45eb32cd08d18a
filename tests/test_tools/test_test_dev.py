"""Submissions are complete, have the names that the server expects, and use the ids of the annotation file."""

import json
import sys
import zipfile
from pathlib import Path

import cv2
import pytest
import test_dev
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from panopticapi.utils import rgb2id
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from knet_plugin.datasets.shapes import make_shapes
from knet_plugin.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
NUM_IMAGES = 3
# Untrained models, whose thresholds keep every prediction.
CONFIGS = {
    'panoptic': f"""
_base_ = '{ROOT}/configs/panoptic/knet-s3_r18-s_fpn_1xb8-adamw-1k_shapes-panoptic-128x128.py'
model = dict(backbone=dict(base_channels=8, init_cfg=None), neck=dict(in_channels=[8, 16, 32, 64]),
             test_cfg=dict(max_per_img=10, instance_score_thr=0.0, overlap_thr=0.0))
test_evaluator = [dict(type='knet_plugin.PanopticMetric'), dict(type='CocoMetric', metric=['bbox', 'segm']),
                  dict(type='SemSegMetric')]
test_dataloader = dict(num_workers=0, persistent_workers=False)
""",
    'instance': f"""
_base_ = '{ROOT}/configs/instance/knet-s3_r18-s_fpn_1xb8-adamw-1k_shapes-instance-128x128.py'
model = dict(backbone=dict(base_channels=8, init_cfg=None), neck=dict(in_channels=[8, 16, 32, 64]),
             test_cfg=dict(max_per_img=10))
test_evaluator = dict(_delete_=True, type='CocoMetric', metric='segm')
test_dataloader = dict(num_workers=0, persistent_workers=False)
""",
}


def coco_id(label: int) -> int:
    """Category ids with gaps, as in COCO."""
    return 3 * label + 13


@pytest.fixture(scope='module')
def workplace(tmp_path_factory) -> Path:
    """Images with an ``image_info`` file without stuff, a file with all categories, configs and checkpoints."""
    place = tmp_path_factory.mktemp('test_dev')
    make_shapes(place / 'shapes', 1, NUM_IMAGES)
    for kind, name in (('instances', 'image_info'), ('panoptic', 'categories')):
        content = json.loads((place / f'shapes/annotations/{kind}_val.json').read_text())
        for label, category in enumerate(content['categories']):
            category['id'] = coco_id(label)
            if kind == 'instances':
                category.pop('isthing')
        content.pop('annotations')
        (place / f'{name}.json').write_text(json.dumps(content))
    for name, text in CONFIGS.items():
        (place / f'{name}.py').write_text(text)
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope('mmdet'):
            model = MODELS.build(Config.fromfile(place / f'{name}.py').model)
        model.init_weights()
        torch.save(dict(state_dict=model.state_dict(), meta={}), place / f'{name}.pth')
    return place


@pytest.fixture
def call(workplace, tmp_path, monkeypatch):
    """Runs the tool for a config; returns the folder of the results."""
    def run(name: str, *arguments: str, **options: Path) -> Path:
        options = dict(image_info=workplace / 'image_info.json', img_dir=workplace / 'shapes/val',
                       out=tmp_path / 'out') | options
        given = [part for key, value in options.items() for part in (f'--{key.replace("_", "-")}', str(value))]
        monkeypatch.setattr(sys, 'argv', [
            'test_dev.py', str(workplace / f'{name}.py'), str(workplace / f'{name}.pth'), '--work-dir',
            str(tmp_path / 'run'), *given, *arguments])
        test_dev.main()
        return options['out']

    return run


def check_detections(workplace: Path, folder: Path, stem: str, keys: set[str]) -> None:
    detections = json.loads((folder / f'{stem}.json').read_text())
    info = json.loads((workplace / 'image_info.json').read_text())
    assert {each['image_id'] for each in detections} == {image['id'] for image in info['images']}
    assert {each['category_id'] for each in detections} <= {coco_id(label) for label in range(6)}
    for each in detections:
        assert each.keys() == {'image_id', 'category_id', 'score'} | keys
        if 'segmentation' in keys:
            assert mask_utils.decode(each['segmentation']).shape == (128, 128)
    with zipfile.ZipFile(folder / f'{stem}.zip') as archive:
        assert archive.namelist() == [f'{stem}.json']
        assert json.loads(archive.read(f'{stem}.json')) == detections
    ground_truth = COCO()
    ground_truth.dataset = info | dict(annotations=[])
    ground_truth.createIndex()
    assert len(ground_truth.loadRes(detections).anns) == len(detections)  # what the server does first


def test_panoptic_config(workplace, call):
    out = call('panoptic', '--name', 'tiny', categories=workplace / 'categories.json')
    assert sorted(path.name for path in out.iterdir()) == ['bbox', 'image_info_test-dev2017.json', 'panoptic', 'segm']
    check_detections(workplace, out / 'segm', 'detections_test-dev2017_tiny_results', {'segmentation'})
    check_detections(workplace, out / 'bbox', 'detections_test-dev2017_tiny_results', {'bbox'})

    stem = 'panoptic_test-dev2017_tiny_results'
    results = json.loads((out / f'panoptic/{stem}.json').read_text())['annotations']
    images = json.loads((workplace / 'image_info.json').read_text())['images']
    assert sorted((each['image_id'], each['file_name']) for each in results) == sorted(
        (image['id'], image['file_name'].replace('.jpg', '.png')) for image in images)
    for each in results:
        png = cv2.imread(str(out / 'panoptic' / stem / each['file_name']))
        assert {segment['id'] for segment in each['segments_info']} == set(rgb2id(png[..., ::-1]).flat) - {0}
        # mmdet's segment ids are label + 1000 * instance.
        assert all(segment['category_id'] == coco_id(segment['id'] % 1000) for segment in each['segments_info'])
    assert sum(len(each['segments_info']) for each in results) >= len(images)
    with zipfile.ZipFile(out / f'panoptic/{stem}.zip') as archive:
        names = [f'{stem}/{each["file_name"]}' for each in results]
        assert archive.namelist() == [f'{stem}.json', *sorted(names)]
        assert archive.read(names[0]) == (out / 'panoptic' / names[0]).read_bytes()


def test_instance_config(workplace, call):
    out = call('instance', '--testset', 'val2017')
    assert sorted(path.name for path in out.iterdir()) == ['image_info_val2017.json', 'segm']
    check_detections(workplace, out / 'segm', 'detections_val2017_knet_results', {'segmentation'})


@pytest.mark.parametrize(('option', 'path'), [('image_info', 'none.json'), ('img_dir', 'none'), ('out', '.')])
def test_wrong_paths(workplace, call, option, path):
    with pytest.raises(SystemExit, match=f'--{option.replace("_", "-")} {workplace / path}'):
        call('instance', **{option: workplace / path})


def test_panoptic_needs_categories_with_stuff(call):
    with pytest.raises(SystemExit, match='--categories'):
        call('panoptic')


def test_metrics_that_the_server_does_not_know():
    assert test_dev.wanted_results(Config(dict(type='CocoMetric')).copy()) == (False, ['bbox'])
    with pytest.raises(SystemExit, match='test_evaluator'):
        test_dev.wanted_results([Config(dict(type='SemSegMetric')), Config(dict(type='CocoMetric', metric='proposal'))])


def test_only_annotations_are_removed_from_the_pipeline():
    pipeline = [dict(type=name) for name in ('LoadImageFromFile', 'LoadAnnotations', 'Resize',
                                             'knet_plugin.LoadPanopticAnnotations', 'PackDetInputs')]
    dataset = dict(type='CocoDataset', pipeline=pipeline, indices=5, data_prefix=dict(img='a', seg='b'))
    cfg = Config(dict(test_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=dataset))))
    test_dev.configure(cfg, Path('/info.json'), Path('/images'), Path('/out/raw'), panoptic=True, kinds=['segm'])
    used = cfg.test_dataloader.dataset
    assert [each.type for each in used.pipeline] == ['LoadImageFromFile', 'Resize', 'PackDetInputs']
    assert (used.type, used.indices, used.data_prefix) == ('CocoDataset', None, dict(img='/images/'))


def test_missing_panoptic_results(tmp_path):
    (tmp_path / 'raw.panoptic').mkdir()
    (tmp_path / 'raw.panoptic/0.png').touch()
    annotations = [dict(image_id=i, file_name=f'{i}.png') for i in range(2)]
    (tmp_path / 'raw.panoptic.json').write_text(json.dumps(dict(annotations=annotations)))
    images = [dict(id=i, file_name=f'{i}.jpg') for i in range(3)]
    with pytest.raises(SystemExit, match='2 of 3 .*1.jpg'):
        test_dev.pack_panoptic(tmp_path / 'raw', images, tmp_path / 'panoptic/results.json')
