"""Odd image files and annotations through the hosts' data sets and our loading into a training step."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hostile import LABEL_MAPS, numbers, seeds, shares, try_inputs
from hostile_files import CLASSES, FORMATS, LABELS, OBJECTS, SEGMENTS, coco, panoptic, semantic
from hostile_models import build_model, losses_of, model_config, predictions_of
from hypothesis import strategies as st
from mmengine.dataset import BaseDataset, pseudo_collate
from torch import nn

SIDES = [2, 3, 5, 8, 16, 31, 33, 50, 1]
DATA = dict(instance=coco, panoptic=panoptic, semantic=semantic)


@pytest.fixture(scope='module')
def models() -> dict[str, nn.Module]:
    """The small models, for the classes of these files."""
    built = {}
    for task in DATA:
        cfg = model_config(task)
        if task == 'semantic':
            cfg.model.decode_head.kernel_generate_head.num_classes = len(CLASSES)
        else:
            stuff = 2 if task == 'panoptic' else 0
            cfg.model.panoptic_head.update(num_things_classes=3, num_stuff_classes=stuff)
        built[task] = build_model(cfg)
    return built


@st.composite
def data_sets(draw: Any, task: str) -> dict:
    """One to three images."""
    formats = sorted(FORMATS)
    # mmseg squeezes label maps: those of one row or column are test_mmseg_refuses_label_maps_of_one_row's.
    side = st.sampled_from(SIDES[:-1] if task == 'semantic' else SIDES)
    images = []
    for _ in range(draw(st.integers(1, 3))):
        image = dict(format=draw(st.sampled_from(formats)),
                     size=(draw(side), draw(side)))
        if task == 'instance':
            image['objects'] = draw(st.lists(st.sampled_from(OBJECTS), max_size=6)) * draw(numbers(1, rare=20))
        elif task == 'panoptic':
            image['segments'] = draw(st.lists(st.sampled_from(SEGMENTS), max_size=8))
        else:
            image |= dict(labels=draw(st.sampled_from(sorted(LABELS))), label_map=draw(st.sampled_from(LABEL_MAPS)))
        images.append(image)
    return dict(images=images, seed=draw(seeds()))


def check_data_set(task: str, model: nn.Module, case: dict) -> None:
    """It loads as it was written, the losses are finite, and so are the predictions."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = DATA[task](Path(folder), case['images'], case['seed'])
        items = [dataset[i] for i in range(len(dataset))]
    assert len(items) == len(case['images'])
    for item, image in zip(items, case['images'], strict=True):
        assert item['inputs'].shape == (3, *image['size']) and item['inputs'].dtype == torch.uint8
        assert item['data_samples'].ori_shape == image['size']
    losses = losses_of(model, pseudo_collate(items))
    assert all(torch.as_tensor(value).isfinite().all() for value in losses.values())
    assert all(each.grad is None or each.grad.isfinite().all() for each in model.parameters())
    predictions_of(model, pseudo_collate(items[:1]))


@pytest.mark.parametrize('task', DATA)
@shares(12, 120)
def test_odd_files_train(task, count, models):
    def check_files(case: dict) -> None:
        check_data_set(task, models[task], case)

    try_inputs(check_files, data_sets(task), count)
