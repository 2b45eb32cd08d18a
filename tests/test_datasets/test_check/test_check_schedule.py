"""Schedules that do not fit the training."""

import pytest
from mmengine.config import Config

from knet_plugin.datasets.check import check_config
from knet_plugin.datasets.check.report import Report
from knet_plugin.datasets.check.schedule_rules import check_schedule

WARMUP = dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000)
STEPS = dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[8, 11])


def warnings(scheduler, images=0, processes=1, **train_cfg):
    report = Report()
    cfg = Config(dict(param_scheduler=scheduler, train_cfg=train_cfg, train_dataloader=dict(batch_size=2)))
    check_schedule(cfg, images, processes, report)
    assert report.errors == []
    return [finding.message for finding in report.warnings]


@pytest.mark.parametrize(('scheduler', 'options', 'numbers'), [
    (WARMUP, dict(max_iters=36), ('1000', '36')),
    ([WARMUP, STEPS], dict(max_epochs=12, images=6), ('1000', '36 iterations', '12')),
    (WARMUP, dict(max_iters=2999), ('1000', '2999')),
    (dict(optimizer=[WARMUP]), dict(max_iters=36), ('1000', '36')),
    (dict(WARMUP, by_epoch=True, end=3), dict(max_epochs=4, images=20), ('30', '40 iterations')),
    (dict(WARMUP, type='mmengine.LinearLR'), dict(max_iters=36), ('1000', )),
    (STEPS, dict(max_epochs=8, images=6), ('[8, 11]', '24 iterations')),
    (STEPS, dict(max_epochs=10, images=6), ('[11]', )),
    (dict(STEPS, by_epoch=False, begin=1000, milestones=[59000, 71000]), dict(max_iters=60000), ('59000', '60000')),
    (dict(type='PolyLR', by_epoch=False, begin=0, end=80000), dict(max_iters=1000), ('80000', '1000')),
])
def test_warnings(scheduler, options, numbers):
    found, = warnings(scheduler, **options)
    assert all(number in found for number in numbers)


@pytest.mark.parametrize(('scheduler', 'options'), [
    (WARMUP, dict(max_iters=3000)), (WARMUP, dict(max_epochs=12, images=1000)), (STEPS, dict(max_epochs=12, images=1)),
    (dict(WARMUP, end=1), dict(max_iters=2)),
    (WARMUP, dict(max_epochs=12)), (None, dict(max_iters=5)), ([], dict(max_iters=5)), (WARMUP, {}),
    (dict(type='PolyLR', by_epoch=False, begin=100, end=1000), dict(max_iters=1000)),
])
def test_no_warning(scheduler, options):
    assert warnings(scheduler, **options) == []


def test_processes_share_the_images():
    assert warnings(dict(WARMUP, end=100), max_epochs=1, images=800) == []
    assert '50 iterations' in warnings(dict(WARMUP, end=100), max_epochs=1, images=800, processes=8)[0]


def test_only_trainings_have_a_schedule():
    cfg = Config(dict(param_scheduler=WARMUP, train_cfg=dict(max_iters=36)))
    assert check_config(cfg, ('test', )).warnings == []
    assert len(check_config(cfg).warnings) == 1
