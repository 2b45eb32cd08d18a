"""Sizes and positions of an exported model, and the text in its file."""

import dataclasses
import json

import mmcv
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from knet_plugin.export.graph import Resize
from knet_plugin.runtime import EngineError, ModelInfo

INFO = ModelInfo(version='0.1.0', parts=('semantic',), outputs=('semantic',), classes=('a', 'b'), num_things=0,
                 palette=((1, 2, 3), (4, 5, 6)), score_thr=0.3, resize=(300, 200), keep_ratio=True, size=None,
                 align_corners=False, fill=(124, 116, 104))


def changed(**values):
    return dataclasses.replace(INFO, **values)


def test_description_survives_the_file():
    assert ModelInfo.from_json(INFO.to_json(), 'a.onnx') == INFO
    plain = changed(palette=None, resize=None, size=(64, 96))
    assert ModelInfo.from_json(plain.to_json(), 'a.onnx') == plain


@pytest.mark.parametrize('text', ['', None])
def test_other_files_are_refused(text):
    with pytest.raises(EngineError, match=r'a\.onnx'):
        ModelInfo.from_json(text, 'a.onnx')


@pytest.mark.parametrize('change', [dict(format=7), dict(colour='red')])
def test_other_versions_are_refused(change):
    content = json.loads(INFO.to_json()) | dict(version='9.8') | change
    with pytest.raises(EngineError, match=r'a\.onnx.*9\.8'):
        ModelInfo.from_json(json.dumps(content), 'a.onnx')


@pytest.mark.parametrize('size', [(480, 640), (640, 480), (33, 1000), (7, 5)])
def test_free_images_are_resized_as_by_mmcv(size):
    image = np.zeros((*size, 3), np.uint8)
    assert INFO.input_size(*size) == mmcv.imrescale(image, INFO.resize).shape[:2]
    assert changed(keep_ratio=False).input_size(*size) == (200, 300)
    assert changed(resize=None).input_size(*size) == size


@pytest.mark.parametrize('size', [(480, 640), (640, 480), (33, 1000), (7, 5)])
def test_images_fit_into_a_fixed_input(size):
    height, width = changed(size=(128, 160)).input_size(*size)
    assert height <= 128 and width <= 160 and (height == 128 or width == 160)
    assert changed(size=(128, 160), keep_ratio=False).input_size(*size) == (128, 160)
    small = changed(size=(512, 512), resize=(30, 20)).input_size(*size)
    assert small == changed(resize=(30, 20)).input_size(*size)


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('lengths', [(40, 23), (23, 40), (24, 24), (1, 5)])
def test_positions_sample_as_torch_interpolates(lengths, align_corners):
    info = changed(align_corners=align_corners)
    maps = torch.rand(3, lengths[1], lengths[1], generator=torch.Generator().manual_seed(0))
    places = torch.from_numpy(info.positions(*lengths))
    inputs, image = torch.zeros(1, 3, *maps.shape[1:]), torch.zeros(1, *maps.shape[1:], 3)
    sampled = Resize(maps, inputs, image, places, places)(maps)
    expected = F.interpolate(maps[None], (lengths[0], lengths[0]), mode='bilinear', align_corners=align_corners)[0]
    torch.testing.assert_close(sampled, expected, rtol=1e-5, atol=1e-5)
