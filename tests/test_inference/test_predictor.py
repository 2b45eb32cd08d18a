"""Predictions of small models of the three tasks."""

import mmcv
import numpy as np
import pycocotools.mask as mask_utils
import pytest
import torch
from mmengine.registry import DefaultScope
from small_predictors import CLASSES, small_run

from knet_plugin import Predictor
from knet_plugin.checkpoint import CheckpointError
from knet_plugin.inference.images import split_pipeline
from knet_plugin.inference.run_folder import RunError

KINDS = dict(semantic=['semantic'], instance=['instances'], panoptic=['panoptic', 'instances', 'semantic'])


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    return {task: small_run(task, tmp_path_factory.mktemp('runs') / task) for task in KINDS}


@pytest.fixture(scope='module')
def predictors(runs):
    return {task: Predictor(folder, device='cpu') for task, folder in runs.items()}


def photo(seed=0, size=(64, 96)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def assert_same(results, expected):
    for one, other in zip(results, expected, strict=True):
        assert one.size == other.size and one.parts == other.parts
        for name in ('panoptic', 'semantic'):
            if getattr(one, name) is not None:
                assert (getattr(one, name) != getattr(other, name)).mean() < 0.01  # ties in the last digit
        for first, second in zip(one.instances or (), other.instances or (), strict=True):
            assert first.score == pytest.approx(second.score, abs=1e-4)


@pytest.mark.parametrize('task', KINDS)
def test_result_of_each_task(task, predictors):
    predictor = predictors[task]
    assert predictor.classes == CLASSES[:len(predictor.classes)] and predictor.score_thr == 0.3
    result, = predictor(photo())
    assert result.size == (64, 96) and result.parts == KINDS[task]
    for kind in KINDS[task]:
        assert predictor.draw(photo(), result, kind).shape == (64, 96, 3)


@pytest.mark.parametrize('task', KINDS)
def test_a_batch_gives_the_results_of_its_images(task, predictors, runs):
    images = [photo(0), photo(1), photo(2, (80, 64)), photo(3)]
    batched = Predictor(runs[task], device='cpu', batch_size=3)
    assert_same(batched(images), [predictors[task](image)[0] for image in images])


def test_paths_and_arrays_give_the_same(predictors, tmp_path):
    path = tmp_path / 'ü 漢.png'
    mmcv.imwrite(photo()[..., ::-1], path)
    predictor = predictors['panoptic']
    of_path, of_text, of_array = predictor([path, str(path), photo()])
    for other in (of_text, of_array):
        assert np.array_equal(of_path.panoptic, other.panoptic) and of_path.instances == other.instances
    assert np.array_equal(predictor.draw(path, of_path), predictor.draw(photo(), of_array))


def test_no_images(predictors):
    assert predictors['semantic']([]) == []


def test_threshold_reaches_the_panoptic_map(runs):
    low, high = Predictor(runs['panoptic'], score_thr=0.), Predictor(runs['panoptic'], score_thr=1.)
    assert low.score_thr == 0 and high.score_thr == 1
    assert not any(segment.is_thing for segment in high(photo())[0].segments)
    fusion = low.model.panoptic_fusion_head
    assert fusion.test_cfg['instance_score_thr'] == 0


def test_boxes_enclose_the_masks(predictors):
    for instance in predictors['instance'](photo())[0].instances:
        x, y, width, height = mask_utils.toBbox(instance.mask)
        assert instance.box == (x, y, x + width, y + height)


def test_classes_without_names(runs, tmp_path):
    stored = torch.load(runs['semantic'] / 'iter_10.pth', weights_only=False)
    old = dict(CLASSES=list('abcdefghij'), PALETTE=[[i] * 3 for i in range(10)])
    for meta, expected in ((old, tuple('abcdefghij')),
                           (dict(dataset_meta=dict(classes=('one', 'two'))), CLASSES), ({}, CLASSES)):
        torch.save(dict(stored, meta=meta), tmp_path / 'a.pth')
        assert Predictor(runs['semantic'], tmp_path / 'a.pth', device='cpu').classes == expected


def test_wrapped_data_sets(runs):
    cfg = Predictor(runs['semantic'], device='cpu').cfg
    plain = cfg.test_dataloader.dataset
    for wrapped in (dict(type='ConcatDataset', datasets=[plain, plain]), dict(type='RepeatDataset', dataset=plain)):
        cfg.test_dataloader.dataset = wrapped
        with DefaultScope.overwrite_default_scope('mmseg'):
            reader, pipeline = split_pipeline(cfg.test_dataloader)
        assert reader.inputs(photo())['img'].shape == (64, 96, 3) and pipeline.transforms


def test_errors_name_the_file(runs, predictors, tmp_path):
    (tmp_path / 'bad.jpg').write_bytes(b'nothing')
    with pytest.raises(ValueError, match=r'bad\.jpg'):
        predictors['semantic'](tmp_path / 'bad.jpg')
    with pytest.raises(ValueError, match=r'gone\.jpg'):
        predictors['semantic'](tmp_path / 'gone.jpg')
    with pytest.raises(RunError, match='gone'):
        Predictor(tmp_path / 'gone')
    (tmp_path / 'bad.pth').write_bytes(b'nothing')
    with pytest.raises(CheckpointError, match=r'bad\.pth'):
        Predictor(runs['semantic'], tmp_path / 'bad.pth')


@pytest.mark.parametrize('channels, dtype', [(1, np.uint16), (5, np.uint8)])
def test_other_images_than_8_bit_colour(channels, dtype, tmp_path):
    tifffile = pytest.importorskip('tifffile')
    loader = dict(type='LoadImageFromFile', color_type='unchanged', imdecode_backend='tifffile', to_float32=True)
    folder = small_run('semantic', tmp_path / 'run', model__backbone__in_channels=channels,
                       model__data_preprocessor__mean=[128.], model__data_preprocessor__std=[60.],
                       model__data_preprocessor__bgr_to_rgb=False, test_dataloader__dataset__pipeline__0=loader)
    predictor = Predictor(folder, device='cpu')
    image = np.random.default_rng(0).integers(0, 256, (64, 96, channels), np.uint8).squeeze().astype(dtype)
    image = image * dtype(16) if dtype == np.uint16 else image
    tifffile.imwrite(tmp_path / 'a.tif', image)
    of_path, of_array = predictor([tmp_path / 'a.tif', image])
    assert np.array_equal(of_path.semantic, of_array.semantic)
    assert predictor.reader.read(tmp_path / 'a.tif').max() == image.max()
    for picture in (predictor.draw(tmp_path / 'a.tif', of_path), predictor.draw(image, of_path)):
        assert picture.shape == (64, 96, 3) and picture.std() > 20
