"""The comparison of models on images."""

import sys

import numpy as np
import pycocotools.mask as mask_utils
import pytest
from small_predictors import small_run, tool
from small_runs import small_data

from knet_plugin.inference.benchmark import agreement
from knet_plugin.inference.image_files import write_image
from knet_plugin.inference.inputs import InputError
from knet_plugin.visualization import Instance, Result, Segment


@pytest.fixture
def folder(tmp_path):
    for number in range(2):
        image = np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8)
        write_image(tmp_path / f'images/{number}.png', image)
    return tmp_path


def benchmark(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['benchmark', *map(str, arguments)])
    return tool('benchmark').main()


def test_models_side_by_side(folder, monkeypatch, capsys):
    run = small_run('semantic', folder / 'run')
    assert benchmark(monkeypatch, run, run, '--images', folder / 'images', '--threads', 1) == 0
    printed = capsys.readouterr().out
    assert printed.count('100.00 %') == 2 and '2 images' in printed


def test_validation_images_by_default(folder, monkeypatch, capsys):
    run = small_run('semantic', folder / 'run', small_data(folder / 'shapes', 2, 4))
    assert benchmark(monkeypatch, run, '--threads', 1, '--limit', 3) == 0
    assert '3 images' in capsys.readouterr().out
    assert '--images' in benchmark(monkeypatch, folder / 'model.onnx')


@pytest.mark.parametrize('model', ['missing.onnx', 'missing_run'])
def test_a_model_that_cannot_be_opened_is_named(model, folder, monkeypatch):
    assert model in str(benchmark(monkeypatch, folder / model, '--images', folder / 'images'))


def test_agreement_is_the_share_of_equal_classes():
    mask = np.zeros((4, 4), np.uint8)
    mask[:2] = 1
    segments = [Segment(1, 3, True), Segment(2, 3, True)]
    ids = mask.astype(np.int32)
    one = Result((4, 4), panoptic=ids, segments=segments)
    assert agreement(one, one) == 1
    assert agreement(one, Result((4, 4), panoptic=2 * ids, segments=segments)) == 1  # another number, the same class
    assert agreement(one, Result((4, 4), panoptic=ids, segments=[Segment(1, 4, True)])) == 0.5
    encoded = mask_utils.encode(np.asfortranarray(mask))
    two = Result((4, 4), instances=[Instance(1, 0.9, (0, 0, 4, 2), encoded), Instance(2, 0.1, (0, 0, 4, 2), encoded)])
    assert agreement(two, two) == 1
    assert agreement(two, Result((4, 4), instances=[])) == 0.5
    with pytest.raises(InputError, match='panoptic.*instances'):
        agreement(one, two)
