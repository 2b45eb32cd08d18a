"""Training steps and predictions of whole models: images of any sizes with any ground truth."""

from typing import Any

import pytest
import torch
from hostile import LABEL_MAPS, MASKS, numbers, seeds, shares, try_inputs
from hostile_models import CLASSES, KERNELS, OPTIONS, TASKS, THINGS, losses_of, make_batch, model_of, predictions_of
from hypothesis import strategies as st
from test_hostile_read_outs import check_instances, check_panoptic

SIDES = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 50, 64, 65]


@st.composite
def batches(draw: Any) -> dict:
    """One to three images; one of 2000 x 33 now and then."""
    sides = st.sampled_from(SIDES)
    images = []
    for _ in range(draw(st.integers(1, 3))):
        size = draw(sides), draw(sides)
        images.append(dict(size=size, masks=draw(st.lists(st.sampled_from(MASKS), max_size=8)),
                           label_map=draw(st.sampled_from(LABEL_MAPS)),
                           original=draw(st.one_of(st.just(size), st.tuples(sides, sides)))))
    images[0]['masks'] = (images[0]['masks'] * 300)[:draw(numbers(0, 1, 6, rare=300))]
    if draw(st.integers(0, 15)) == 15:
        images[0]['size'] = draw(st.sampled_from([(2000, 33), (33, 2000)]))
    return dict(images=images, seed=draw(seeds()))


def check_training(task: str, case: dict, keys: set[str]) -> None:
    model = model_of(task)
    losses = losses_of(model, make_batch(task, case['images'], torch.Generator().manual_seed(case['seed'])))
    assert set(losses) == keys
    assert all(torch.as_tensor(value).isfinite().all() for value in losses.values())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None or not parameter.requires_grad, name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def check_predictions(task: str, case: dict) -> None:
    images = case['images']
    if task.startswith('semantic'):  # mmseg predicts images of one size together
        images = [dict(image, size=images[0]['size']) for image in images]
    results = predictions_of(model_of(task), make_batch(task, images, torch.Generator().manual_seed(case['seed'])))
    for image, result in zip(images, results, strict=True):
        size = image['original']
        if task.startswith('semantic'):
            check_semantic(result.pred_sem_seg.data, size)
            continue
        check_instances(result.pred_instances, min(20, KERNELS * THINGS), THINGS, size)
        if task.startswith('panoptic'):
            check_panoptic(result.pred_panoptic_seg.sem_seg, CLASSES, KERNELS + CLASSES - THINGS, size)
            check_semantic(result.pred_sem_seg.sem_seg, size)


def check_semantic(labels: torch.Tensor, size: tuple[int, int]) -> None:
    assert labels.shape == (1, *size) and labels.dtype == torch.int64
    assert labels.min() >= 0 and labels.max() < CLASSES


def usual_keys(task: str) -> set[str]:
    """Those of an image with some of everything."""
    image = dict(size=(32, 32), masks=['noise'], label_map='noise')
    return set(losses_of(model_of(task), make_batch(task, [image], torch.Generator().manual_seed(0))))


@pytest.mark.parametrize('task', [*TASKS, *OPTIONS])
@shares(6, 40)
def test_training_steps_are_finite(task, count):
    keys = usual_keys(task)

    def check_training_step(case: dict) -> None:
        check_training(task, case, keys)

    try_inputs(check_training_step, batches(), count)


@pytest.mark.parametrize('task', [*TASKS, *OPTIONS])
@shares(8, 60)
def test_predictions_are_in_range(task, count):
    def check_prediction(case: dict) -> None:
        check_predictions(task, case)

    try_inputs(check_prediction, batches(), count)
