"""Small models of all tasks, and one that is exported."""

import pytest
from small_predictors import small_run

from knet_plugin import Predictor
from knet_plugin.export import export_model


@pytest.fixture(scope='session')
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs')
    return {task: small_run(task, folder / task) for task in ('semantic', 'instance', 'panoptic')}


@pytest.fixture(scope='session')
def semantic(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp('exported') / 'semantic.onnx'
    export_model(Predictor(runs['semantic'], device='cpu'), path, dynamic=True)
    return path
