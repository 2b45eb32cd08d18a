"""The lines of docs/training.md for TensorBoard and other services."""

import re
from pathlib import Path

import pytest
from mmengine.registry import VISBACKENDS
from mmengine.runner import Runner
from tiny_runs import tiny_config

import knet_plugin

DOCS = Path(knet_plugin.__file__).parents[1] / 'docs/training.md'
NEEDS = dict(LocalVisBackend='mmengine', TensorboardVisBackend='tensorboard', WandbVisBackend='wandb',
             MLflowVisBackend='mlflow')


def lines() -> list[dict]:
    found = re.findall(r"^\| .*`(dict\(type='\w+VisBackend'.*?\))` \|", DOCS.read_text(), re.MULTILINE)
    return [eval(line) for line in found]


def test_every_service_is_known():
    assert [line['type'] for line in lines()] == list(NEEDS)
    assert all(line['type'] in VISBACKENDS for line in lines())


@pytest.mark.parametrize('name', ['LocalVisBackend', 'TensorboardVisBackend'])
def test_a_run_writes_to_it(name, tmp_path):
    pytest.importorskip(NEEDS[name])
    line = next(line for line in lines() if line['type'] == name)
    cfg = tiny_config(tmp_path / 'run', visualizer=dict(type='Visualizer', vis_backends=[line]))
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=1)
    Runner.from_cfg(cfg).train()
    assert any(path.stat().st_size for path in (tmp_path / 'run').glob('*/vis_data/*'))
