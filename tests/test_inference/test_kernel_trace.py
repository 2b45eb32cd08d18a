"""What kernels do, against the model's own stages."""

import numpy as np
import pytest
import torch
from small_predictors import small_run
from torch import nn

from knet_plugin import Predictor
from knet_plugin.inference.kernel_trace import TraceError, average_masks, trace_kernels

RGB = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


@pytest.fixture(scope='module')
def predictors(tmp_path_factory):
    folder = tmp_path_factory.mktemp('trace')
    return {task: Predictor(small_run(task, folder / task)) for task in ('panoptic', 'semantic')}


def test_detector(predictors):
    predictor = predictors['panoptic']
    inputs, sample = predictor.prepare(RGB)
    trace = trace_kernels(predictor, RGB)
    with torch.no_grad():
        proposals, updates = predictor.model.panoptic_head.stages(predictor.model.extract_feat(inputs))
    assert trace.masks.shape[:2] == (4, updates[-1].mask_logits.shape[1]) and not trace.from_image
    height, width = trace.masks.shape[2:]
    assert np.allclose(trace.masks[-1], updates[-1].mask_logits[0, :, :height, :width].sigmoid(), atol=1e-6)
    for stage, update in enumerate(updates):
        scores, labels = predictor.model.panoptic_fusion_head.candidates(update.class_logits[0].sigmoid())
        assert np.allclose(trace.scores[stage], scores, atol=1e-6) and (trace.labels[stage] == labels.numpy()).all()
    assert (sample.img_shape, tuple(inputs.shape[-2:]), (height, width)) == ((102, 128), (128, 128), (26, 32))


def test_attention_is_that_of_the_stages(predictors):
    """With need_weights, MultiheadAttention returns the weights of its own output."""
    predictor = predictors['panoptic']
    trace = trace_kernels(predictor, RGB)
    attention = predictor.model.panoptic_head.kernel_update_head[1].interaction.attention
    given = []
    handle = attention.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    trace_kernels(predictor, RGB)
    handle.remove()
    query, key, _ = nn.functional.linear(given[0], attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
    heads = [part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in (query, key)]
    weights = (heads[0] @ heads[1].mT / heads[0].shape[-1] ** 0.5).softmax(dim=-1).mean(dim=1)
    assert np.allclose(trace.attention[1], weights[0].detach(), atol=1e-6)
    assert np.allclose(trace.attention.sum(axis=-1), 1, atol=1e-5)
    assert not any(part._forward_pre_hooks for part in predictor.model.modules())  # none is left


def test_segmentor(predictors):
    trace = trace_kernels(predictors['semantic'], RGB)
    assert trace.labels is None is trace.scores and trace.masks.shape[:2] == (4, len(predictors['semantic'].classes))
    assert np.allclose(trace.masks.sum(axis=1), 1, atol=1e-5)


def test_average_is_over_images(predictors):
    predictor = predictors['semantic']
    one, other = (average_masks(predictor, [image], side=16) for image in (RGB, RGB[::-1]))
    both = average_masks(predictor, [RGB, RGB[::-1]], side=16)
    assert both.shape == (len(predictor.classes), 16, 16) and np.allclose(both, (one + other) / 2, atol=1e-6)
    with pytest.raises(ValueError, match='no images'):
        average_masks(predictor, [])


def test_kernels_of_an_image_have_no_average(tmp_path):
    predictor = Predictor(small_run('instance', tmp_path / 'run',
                                    model__panoptic_head__kernel_head__type='knet_plugin.CentreKernelHead'))
    assert trace_kernels(predictor, RGB).from_image
    with pytest.raises(TraceError, match='anew'):
        average_masks(predictor, [RGB])


def test_models_without_kernels_are_refused(predictors):
    predictor = predictors['semantic']
    head = predictor.model.decode_head
    predictor.model.decode_head = head.kernel_generate_head
    try:
        with pytest.raises(TraceError, match='EncoderDecoder with FCNHead'):
            trace_kernels(predictor, RGB)
    finally:
        predictor.model.decode_head = head
