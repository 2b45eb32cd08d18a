"""Results of images without annotations: complete, under the names of the server, with the numbers of the file."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import cv2
import pytest
import torch
from mmdet.datasets import CocoPanopticDataset
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from panopticapi.utils import rgb2id
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from knet_plugin.datasets.shapes import CLASSES, make_shapes
from knet_plugin.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools' / 'test_dev.py'
NUM_IMAGES = 5
MODEL = """
_base_ = ['{root}/configs/_base_/models/{model}.py', '{root}/configs/_base_/datasets/{dataset}.py',
          'mmdet::_base_/default_runtime.py']
norm_cfg = dict(type='GN', num_groups=2)
model = dict(
    backbone=dict(depth=18, base_channels=8, norm_cfg=dict(type='BN'), init_cfg=None),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=32),
    panoptic_head=dict(
        num_things_classes=6, {stuff}
        kernel_head=dict(
            num_kernels=7, channels=32, norm_cfg=norm_cfg,
            localization_fpn=dict(
                type='knet_plugin.LocalizationFPN', in_channels=32, feat_channels=32, out_channels=32,
                norm_cfg=norm_cfg,
                positional_encoding=dict(type='mmdet.SinePositionalEncoding', num_feats=16, normalize=True))),
        kernel_update_head=dict(interaction=dict(feedforward_channels=32))),
    # Untrained, so everything that is found is kept.
    test_cfg=dict(max_per_img=10, {thresholds}))
test_evaluator = {evaluator}
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg = test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
"""
PANOPTIC = MODEL.format(
    root=ROOT, model='knet_r50_fpn_panoptic', dataset='shapes_panoptic', stuff='num_stuff_classes=4,',
    thresholds='instance_score_thr=0.0, overlap_thr=0.0',
    evaluator="[dict(type='CocoPanopticMetric'), dict(type='CocoMetric', metric=['bbox', 'segm']), "
              "dict(type='SemSegMetric')]")
INSTANCE = MODEL.format(root=ROOT, model='knet_r50_fpn', dataset='shapes_instance', stuff='', thresholds='',
                        evaluator="dict(type='CocoMetric', metric='segm')")


def offset(category_id: int) -> int:
    """Ids with gaps, as COCO's."""
    return 3 * category_id + 10


@pytest.fixture(scope='module')
def workplace(tmp_path_factory) -> Path:
    """Images with no more than their list, as COCO's: the ids of the categories have gaps, the list knows no stuff."""
    place = tmp_path_factory.mktemp('test_dev')
    root = place / 'data/shapes'
    make_shapes(root, 1, NUM_IMAGES, workers=0)
    (root / 'val').rename(root / 'test')
    for kind, name in (('instances', 'image_info'), ('panoptic', 'panoptic')):
        content = json.loads((root / f'annotations/{kind}_val.json').read_text())
        for category in content['categories']:
            category['id'] = offset(category['id'])
            if kind == 'instances':
                category.pop('isthing', None)
        content.pop('annotations')
        (root / f'annotations/{name}.json').write_text(json.dumps(content))
    for kind in ('instances', 'panoptic'):
        (root / f'annotations/{kind}_val.json').unlink()
    for name, text in (('panoptic', PANOPTIC), ('instance', INSTANCE)):
        (place / f'{name}.py').write_text(text)
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope('mmdet'):
            model = MODELS.build(Config.fromfile(place / f'{name}.py').model)
        model.init_weights()
        torch.save(dict(state_dict=model.state_dict(), meta={}), place / f'{name}.pth')
    return place


def call(workplace: Path, name: str, *arguments: str, out: str = 'out') -> subprocess.CompletedProcess:
    command = [sys.executable, str(TOOL), f'{name}.py', f'{name}.pth', '--image-info', 'annotations/image_info.json',
               '--img-dir', 'test', '--out', out, *arguments]
    environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')
    return subprocess.run(command, cwd=workplace, env=environment, capture_output=True, text=True, check=False)


def image_info(workplace: Path) -> dict:
    return json.loads((workplace / 'data/shapes/annotations/image_info.json').read_text())


def check_detections(workplace: Path, folder: Path, stem: str, keys: set[str]) -> None:
    detections = json.loads((folder / f'{stem}.json').read_text())
    info = image_info(workplace)
    assert {each['image_id'] for each in detections} == {image['id'] for image in info['images']}
    assert {each['category_id'] for each in detections} <= {offset(i + 1) for i in range(6)}
    assert len({each['category_id'] for each in detections}) > 1
    for each in detections:
        assert each.keys() == {'image_id', 'category_id', 'score'} | keys
        if 'segmentation' in keys:
            assert coco_mask.decode(each['segmentation']).shape == (128, 128)
    with zipfile.ZipFile(folder / f'{stem}.zip') as archive:
        assert archive.namelist() == [f'{stem}.json']
        assert json.loads(archive.read(f'{stem}.json')) == detections
    ground_truth = COCO()
    ground_truth.dataset = info | dict(annotations=[])
    ground_truth.createIndex()
    assert len(ground_truth.loadRes(detections).anns) == len(detections)  # as the server begins


def test_panoptic_config(workplace):
    done = call(workplace, 'panoptic', '--categories', 'annotations/panoptic.json', '--name', 'tiny',
                '--cfg-options', 'test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False')
    assert done.returncode == 0, done.stderr
    assert 'left out, as the server does not evaluate it: SemSegMetric' in done.stdout
    out = workplace / 'out'
    uploads = [out / f'{kind}/{name}_test-dev2017_tiny_results.zip' for kind, name in
               (('segm', 'detections'), ('bbox', 'detections'), ('panoptic', 'panoptic'))]
    assert [line.split(': ')[-1] for line in done.stdout.splitlines() if line.startswith('to upload')] == [
        str(path) for path in uploads]
    assert sorted(path.name for path in out.iterdir()) == ['bbox', 'image_info_test-dev2017.json', 'panoptic', 'segm']
    check_detections(workplace, out / 'segm', uploads[0].stem, {'segmentation'})
    check_detections(workplace, out / 'bbox', uploads[1].stem, {'bbox'})

    stem = uploads[2].stem
    results = json.loads((out / f'panoptic/{stem}.json').read_text())['annotations']
    images = image_info(workplace)['images']
    assert sorted((each['image_id'], each['file_name']) for each in results) == sorted(
        (image['id'], image['file_name'].replace('.jpg', '.png')) for image in images)
    for each in results:
        path = out / 'panoptic' / stem / each['file_name']
        ids = set(rgb2id(cv2.imread(str(path))[..., ::-1]).flatten().tolist())
        assert {segment['id'] for segment in each['segments_info']} == ids - {0}
        # mmdet numbers segments label + 1000 * instance.
        assert all(segment['category_id'] == offset(segment['id'] % 1000 + 1) for segment in each['segments_info'])
    assert sum(len(each['segments_info']) for each in results) >= len(images)
    with zipfile.ZipFile(uploads[2]) as archive:
        pngs = sorted(f'{stem}/{each["file_name"]}' for each in results)
        assert archive.namelist() == [f'{stem}.json', *pngs]
        first = results[0]['file_name']
        assert archive.read(f'{stem}/{first}') == (out / 'panoptic' / stem / first).read_bytes()


def test_instance_config(workplace):
    done = call(workplace, 'instance', '--testset', 'val2017', out='out_instance')
    assert done.returncode == 0, done.stderr
    out = workplace / 'out_instance'
    assert sorted(path.name for path in out.iterdir()) == ['image_info_val2017.json', 'segm']
    check_detections(workplace, out / 'segm', 'detections_val2017_knet_results', {'segmentation'})


@pytest.fixture(scope='module')
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location('knet_tool_test_dev', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def refused(tool, workplace, tmp_path, monkeypatch, capsys):
    """Runs the tool on a copy of the data, which has to refuse; gives its message."""
    place = shutil.copytree(workplace, tmp_path / 'place', ignore=shutil.ignore_patterns('out*'))
    monkeypatch.chdir(place)

    def run(*arguments: str, config: str = 'panoptic', **options: str) -> str:
        options = dict(image_info='annotations/image_info.json', img_dir='test', out='out',
                       categories='annotations/panoptic.json') | options
        given = [part for key, value in options.items() for part in (f'--{key.replace("_", "-")}', value) if value]
        monkeypatch.setattr(sys, 'argv', ['test_dev.py', f'{config}.py', f'{config}.pth', *given, *arguments])
        with pytest.raises(SystemExit) as stopped:
            tool.main()
        assert not Path('out/image_info_test-dev2017.json').exists()
        return f'{stopped.value} {capsys.readouterr().err}'

    return run


@pytest.mark.parametrize(('option', 'given'), [
    ('image_info', 'annotations/none.json'), ('categories', 'none.json'), ('img_dir', 'none')])
def test_missing_paths(refused, option, given):
    message = refused(**{option: given})
    assert f'--{option.replace("_", "-")}: there is neither {given} nor data/shapes/{given}' in message


def test_missing_checkpoint(refused):
    Path('panoptic.pth').unlink()
    assert 'there is no checkpoint panoptic.pth' in refused()


def test_missing_images(refused):
    images = sorted(Path('data/shapes/test').iterdir())
    images[1].unlink()
    images[3].unlink()
    assert f'error: 2 of the {NUM_IMAGES} images' in (message := refused())
    assert f'the first is {images[1].name}' in message


def test_results_are_not_mixed(refused):
    Path('out').mkdir()
    Path('out/old.json').touch()
    assert 'out is not an empty folder' in refused()


@pytest.mark.parametrize('name', ['two words', '../up'])
def test_names_that_make_no_file_name(refused, name):
    assert 'letters, digits' in refused(name=name)


def test_panoptic_needs_categories_with_stuff(refused):
    assert 'image_info.json do not tell things from stuff; give --categories' in refused(categories='')


@pytest.mark.parametrize(('edit', 'message'), [
    (lambda categories: categories.pop(), f"names '{CLASSES[-1]}', but .*panoptic.json has no such"),
    (lambda categories: categories.reverse(), 'another order than the categories of .*panoptic.json'),
    (lambda categories: categories[0].update(isthing=0), 'isthing=0, but is one of metainfo.thing_classes'),
])
def test_categories_that_do_not_fit(refused, edit, message):
    file = Path('data/shapes/annotations/panoptic.json')
    content = json.loads(file.read_text())
    edit(content['categories'])
    file.write_text(json.dumps(content))
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(refused())


@pytest.mark.parametrize(('content', 'message'), [('{', 'is no valid JSON'), ('[]', 'lists no images'),
                                                  ('{"images": []}', 'lists no images')])
def test_files_that_list_no_images(refused, content, message):
    Path('data/shapes/annotations/image_info.json').write_text(content)
    assert f'image_info.json {message}' in refused()


def test_configs_without_results_for_the_server(refused):
    with Path('panoptic.py').open('a') as file:
        file.write("test_evaluator = [dict(type='SemSegMetric'), dict(type='CocoMetric', metric='proposal')]\n")
    assert 'has only SemSegMetric, proposal' in refused()


def test_model_with_other_numbers_of_classes(tool, workplace, tmp_path, monkeypatch):
    monkeypatch.chdir(workplace)
    (tmp_path / 'fewer.py').write_text(f"_base_ = '{workplace}/instance.py'\n"
                                       'model = dict(panoptic_head=dict(num_things_classes=5))\n'
                                       'custom_hooks = []\n')
    monkeypatch.setattr(sys, 'argv', [
        'test_dev.py', str(tmp_path / 'fewer.py'), 'instance.pth', '--image-info', 'annotations/image_info.json',
        '--img-dir', 'test', '--out', str(tmp_path / 'out'), '--work-dir', str(tmp_path / 'run')])
    with pytest.raises(ValueError, match='num_things_classes=5'):
        tool.main()


def test_data_sets_that_are_wrapped(tool):
    cfg = Config(dict(test_evaluator={}, test_dataloader=dict(dataset=dict(dataset=dict(type='CocoDataset')))))
    assert tool.inner_test_dataset(cfg) == dict(type='CocoDataset')
    with pytest.raises(SystemExit, match='no test_dataloader'):
        tool.inner_test_dataset(Config(dict()))


def test_only_annotations_are_left_out_of_the_pipeline(tool):
    pipeline = [dict(type=name) for name in ('LoadImageFromFile', 'LoadAnnotations', 'Resize',
                                             'knet_plugin.LoadPanopticAnnotations', 'PackDetInputs')]
    dataset = ConfigDict(type='mmdet.CocoDataset', pipeline=pipeline, indices=5, data_prefix=dict(img='a', seg='b'))
    cfg = Config(dict(test_dataloader=dict(dataset=dict(type='RepeatDataset')), test_evaluator={}))
    tool.configure(cfg, dataset, Path('/info.json'), Path('/images'), Path('/out/raw'), panoptic=True, kinds=['segm'])
    used = cfg.test_dataloader.dataset
    assert [each.type for each in used.pipeline] == ['LoadImageFromFile', 'Resize', 'PackDetInputs']
    assert (used.type, used.indices, used.data_prefix) == ('mmdet.CocoDataset', None, dict(img='/images/'))
    assert [metric.type for metric in cfg.test_evaluator] == ['mmdet.CocoPanopticMetric', 'mmdet.CocoMetric']
    assert [hook.type for hook in cfg.custom_hooks] == ['knet_plugin.ClassCheckHook']


def write_panoptic(folder: Path, file_name: str, segment_id: int) -> list[dict]:
    """Results of two images as mmdet writes them, one without its PNG where the name is another."""
    (folder / 'raw.panoptic').mkdir()
    images = [dict(id=i, file_name=f'{i}.jpg') for i in range(2)]
    annotations = [dict(image_id=i, file_name=f'{i}.png', segments_info=[dict(id=segment_id * (1 - i) + i)])
                   for i in range(2)]
    for name in ('0.png', file_name):
        (folder / 'raw.panoptic' / name).write_bytes(b'PNG')
    (folder / 'raw.panoptic.json').write_text(json.dumps(dict(annotations=annotations)))
    return images


@pytest.mark.parametrize(('file_name', 'segment_id', 'message'), [
    ('1.png', 0, 'segments of 1 images have the number 0, .* 0.png|results/0.png'),
    ('2.png', 5, '1 of 2 images have no result, the first is 1.jpg'),
])
def test_incomplete_panoptic_results(tool, tmp_path, file_name, segment_id, message):
    images = write_panoptic(tmp_path, file_name, segment_id)
    with pytest.raises(SystemExit, match=message):
        tool.pack_panoptic(tmp_path / 'raw', images, tmp_path / 'panoptic/results.json')


def test_only_the_pngs_of_the_results_are_packed(tool, tmp_path):
    images = write_panoptic(tmp_path, '1.png', 5)
    (tmp_path / 'raw.panoptic/Thumbs.db').touch()
    path = tool.pack_panoptic(tmp_path / 'raw', images, tmp_path / 'panoptic/results.json')
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ['results.json', 'results/0.png', 'results/1.png']


@pytest.mark.parametrize('name', ['a/0.tif', 'a/1.jpg'])
def test_images_whose_pngs_would_have_no_name_of_their_own(tool, name):
    info = dict(images=[dict(file_name='1.jpg'), dict(file_name=name)],
                categories=[dict(id=i, name=each, isthing=each in CocoPanopticDataset.METAINFO['thing_classes'])
                            for i, each in enumerate(CocoPanopticDataset.METAINFO['classes'])])
    with pytest.raises(SystemExit, match='there is 0.tif' if name.endswith('tif') else 'share a name'):
        tool.check_classes(dict(type='mmdet.CocoPanopticDataset'), info, Path('info.json'), panoptic=True)
