"""A short training through ``tools/train.py`` for each task, with validation and a test of its checkpoint."""

import math

import pytest
from small_runs import TASKS, losses, run, small_config, small_data

METRICS = dict(semantic='mIoU', instance='mask AP', panoptic='PQ')

pytestmark = pytest.mark.slow


@pytest.mark.parametrize('task', TASKS)
def test_losses_fall_and_the_checkpoint_is_evaluated(task, tmp_path):
    cfg = small_config(task, small_data(tmp_path / 'data'), 30, train_cfg__val_interval=30,
                       default_hooks__checkpoint__interval=30)
    cfg.param_scheduler = []  # no warm-up, which takes longer than this training
    trained = run(cfg, tmp_path / 'run')
    assert METRICS[task] in trained.stdout + trained.stderr
    recorded = losses(tmp_path / 'run')
    assert len(recorded) == 30 and all(math.isfinite(each['loss']) for each in recorded.values())
    first, last = (sum(recorded[i]['loss'] for i in span) for span in (range(5), range(25, 30)))
    assert last < 0.95 * first
    tested = run(cfg, tmp_path / 'test', str(tmp_path / 'run/iter_30.pth'), command='test', check=False)
    assert tested.returncode == 0 and METRICS[task] in tested.stdout + tested.stderr
