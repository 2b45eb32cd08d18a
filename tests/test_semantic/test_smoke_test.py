import copy

import pytest
import torch
from mmengine.config import Config

from knet_plugin import attach
from knet_plugin.migration import load_source
from knet_plugin.semantic.smoke_test import build_segmentor, dummy_batch, input_size, measure, train_step

FAST = load_source('mmseg::fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024.py')
SIZE = (64, 96)


def test_attention_is_counted():
    """The cost of the interaction is known: projections, products of attention, and the two layers after them."""
    costs = [measure(build_segmentor(attach(FAST, 3, update), SIZE), SIZE) for update in (
        None, dict(interaction=None))]
    kernels, channels, hidden = 19, 128, 2048
    stage = 4 * kernels * channels**2 + 2 * kernels**2 * channels + 2 * kernels * channels * hidden
    assert costs[0].flops - costs[1].flops == 3 * stage


def test_a_step_leaves_the_weights():
    model = build_segmentor(FAST, SIZE)
    before = {key: value.clone() for key, value in model.named_parameters()}
    assert train_step(model, SIZE)['loss'] > 0
    assert all(torch.equal(value, before[key]) for key, value in model.named_parameters())


def test_losses_that_are_not_finite():
    model = build_segmentor(FAST, SIZE)
    torch.nn.init.constant_(model.decode_head.conv_seg.bias, float('nan'))
    with pytest.raises(FloatingPointError, match='decode.loss_ce'):
        train_step(model, SIZE)


@pytest.mark.parametrize('cfg, size', [
    (dict(model=dict(data_preprocessor=dict(size=(4, 8)))), (4, 8)), (dict(model=dict(), crop_size=(5, 6)), (5, 6)),
    (dict(model=dict(data_preprocessor=dict(size=7))), (7, 7)), (dict(model=dict()), (512, 512))])
def test_input_size(cfg, size):
    assert input_size(Config(cfg)) == size


def test_grey_images_and_a_preprocessor_beside_the_model():
    cfg = copy.deepcopy(FAST)
    cfg.data_preprocessor = dict(cfg.model.pop('data_preprocessor'), mean=[128.], std=[50.], bgr_to_rgb=False)
    cfg.model.backbone.in_channels = 1
    model = build_segmentor(cfg, SIZE)
    assert [tuple(image.shape) for image in dummy_batch(model, SIZE)['inputs']] == [(1, *SIZE)] * 2
    assert train_step(model, SIZE)['loss'] > 0
