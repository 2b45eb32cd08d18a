"""Unusual image files and annotations, from the disk to a training step."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.dataset import pseudo_collate
from robustness_files import CLASSES, FORMATS, OBJECTS, SEGMENTS, instance, panoptic, semantic, write_image
from robustness_inputs import LABEL_MAPS, SEEDS, examples
from robustness_models import TASKS, build_model, losses_of, model_config, predictions_of
from torch import nn

from knet_plugin.datasets.loading import LoadImageFromFile

SIDES = (2, 3, 5, 8, 16, 31, 33, 50)


@pytest.fixture(scope='module')
def models() -> dict[str, nn.Module]:
    """The small models, for the classes of these files."""
    built = {}
    for task in TASKS:
        cfg = model_config(task)
        if task == 'semantic':
            cfg.model.decode_head.kernel_generate_head.num_classes = len(CLASSES)
        else:
            cfg.model.panoptic_head.update(num_things_classes=3, num_stuff_classes=2 if task == 'panoptic' else 0)
        built[task] = build_model(cfg)
    return built


@st.composite
def data_sets(draw: Any, **annotations: st.SearchStrategy) -> dict:
    """One to three images."""
    side = st.sampled_from(SIDES)
    images = [dict(format=draw(st.sampled_from(sorted(FORMATS))), size=(draw(side), draw(side)),
                   **{name: draw(strategy) for name, strategy in annotations.items()})
              for _ in range(draw(st.integers(1, 3)))]
    return dict(images=images, seed=draw(SEEDS))


def check_data_set(make: Any, model: nn.Module, case: dict) -> None:
    """Images keep their size, losses and gradients are finite, and the model predicts."""
    with tempfile.TemporaryDirectory() as folder:
        items = list(make(Path(folder), case['images'], np.random.default_rng(case['seed'])))
    for item, image in zip(items, case['images'], strict=True):
        assert item['inputs'].shape == (3, *image['size']) and item['inputs'].dtype == torch.uint8
        assert item['data_samples'].ori_shape == image['size']
    losses = losses_of(model, pseudo_collate(items))
    assert all(torch.as_tensor(value).isfinite().all() for value in losses.values())
    assert all(each.grad is None or each.grad.isfinite().all() for each in model.parameters())
    predictions_of(model, pseudo_collate(items[:1]))


@examples(8)
@given(case=data_sets(objects=st.lists(st.sampled_from(OBJECTS), max_size=6)))
def test_instance_data_sets(models, case):
    check_data_set(instance, models['instance'], case)


@examples(8)
@given(case=data_sets(segments=st.lists(st.sampled_from(SEGMENTS), max_size=8)))
def test_panoptic_data_sets(models, case):
    check_data_set(panoptic, models['panoptic'], case)


@examples(8)
@given(case=data_sets(label_map=st.sampled_from(LABEL_MAPS)))
def test_semantic_data_sets(models, case):
    check_data_set(semantic, models['semantic'], case)


def test_annotated_size_is_that_of_the_rotated_image(tmp_path):
    write_image(tmp_path / '0.jpg', 'exif', 20, 30, np.random.default_rng(0))
    results = dict(img_path=str(tmp_path / '0.jpg'), height=20, width=30)
    assert LoadImageFromFile()(results)['img'].shape == (20, 30, 3)
    with pytest.raises(ValueError, match=r'0\.jpg: .*\(20, 30\).*\(30, 20\)'):
        LoadImageFromFile()(dict(results, height=30, width=20))
