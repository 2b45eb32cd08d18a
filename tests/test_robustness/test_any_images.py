"""Training steps and predictions of whole models with images of any size and any ground truth."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robustness_inputs import LABEL_MAPS, MASKS, SEEDS, examples
from robustness_models import CLASSES, KERNELS, TASKS, THINGS, losses_of, make_batch, model_of, predictions_of
from test_any_logits import check_instances, check_panoptic

SIDES = st.sampled_from([1, 2, 3, 5, 8, 15, 16, 17, 31, 32, 33, 50, 65])


@st.composite
def batches(draw: Any) -> dict:
    """One to three images, the first of 700 x 33 pixels or with 200 objects now and then."""
    images = []
    for _ in range(draw(st.integers(1, 3))):
        size = draw(SIDES), draw(SIDES)
        images.append(dict(size=size, masks=draw(st.lists(st.sampled_from(MASKS), max_size=8)),
                           label_map=draw(st.sampled_from(LABEL_MAPS)),
                           original=draw(st.one_of(st.just(size), st.tuples(SIDES, SIDES)))))
    images[0]['masks'] *= draw(st.sampled_from([1, 1, 1, 25]))
    images[0]['size'] = draw(st.sampled_from([images[0]['size']] * 7 + [(700, 33)]))
    return dict(images=images, seed=draw(SEEDS))


@pytest.mark.parametrize('task', TASKS)
@examples(8)
@given(case=batches())
def test_training_steps_are_finite(task, case):
    model = model_of(task)
    usual = dict(size=(32, 32), masks=['noise'], label_map='noise')
    keys = set(losses_of(model, make_batch(task, [usual], 0)))
    losses = losses_of(model, make_batch(task, case['images'], case['seed']))
    assert set(losses) == keys
    assert all(torch.as_tensor(value).isfinite().all() for value in losses.values())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None or not parameter.requires_grad, name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


@pytest.mark.parametrize('task', TASKS)
@examples(8)
@given(case=batches())
def test_predictions_are_in_range(task, case):
    images = case['images']
    if task == 'semantic':  # mmseg predicts images of one size together
        images = [dict(image, size=images[0]['size']) for image in images]
    results = predictions_of(model_of(task), make_batch(task, images, case['seed']))
    for image, result in zip(images, results, strict=True):
        size = image['original']
        if task == 'semantic':
            check_semantic(result.pred_sem_seg.data, size)
            continue
        check_instances(result.pred_instances, min(20, KERNELS * THINGS), THINGS, size)
        if task == 'panoptic':
            check_panoptic(result.pred_panoptic_seg.sem_seg, CLASSES, KERNELS + CLASSES - THINGS, size)
            check_semantic(result.pred_sem_seg.sem_seg, size)


def check_semantic(labels: torch.Tensor, size: tuple[int, int]) -> None:
    assert labels.shape == (1, *size) and labels.dtype == torch.int64
    assert labels.min() >= 0 and labels.max() < CLASSES
