"""Small models of all tasks, and one that is exported."""

import pytest
import torch
from small_predictors import small_run

from knet_plugin import Predictor
from knet_plugin.export import export_model


@pytest.fixture(scope='session')
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs')
    runs = {task: small_run(task, folder / task) for task in ('semantic', 'instance', 'panoptic')}
    spread_classes(runs['semantic'] / 'iter_10.pth')
    return runs


def spread_classes(checkpoint):
    """Let kernels have both signs: features have one, so a single class would win everywhere."""
    stored = torch.load(checkpoint, weights_only=False)
    for name, value in stored['state_dict'].items():
        if 'fc_mask' in name:
            value -= value.mean(dim=0)
    torch.save(stored, checkpoint)


@pytest.fixture(scope='session')
def semantic(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp('exported') / 'semantic.onnx'
    export_model(Predictor(runs['semantic'], device='cpu'), path, dynamic=True)
    return path
