"""Tables, scores and learning curves of validations, also of a resumed training."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS
from mmengine.runner import Runner
from tiny_runs import tiny_config

from knet_plugin.engine import validation_report
from knet_plugin.engine.console import quiet_console
from knet_plugin.engine.scores import percent_scores, score_table
from knet_plugin.engine.validation_report import draw_curves, read_validations


@METRICS.register_module()
class Scores(BaseMetric):
    """Reports the next of some scores each time, or nothing."""

    values: list = []

    def process(self, data_batch, data_samples) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict:
        value = self.values.pop(0)
        return dict(aAcc=1.) if value is None else dict(mIoU=value, aAcc=50., names=['a'])


def config(work_dir: Path, epochs: int, resume: Path | None = None, **checkpoint) -> Config:
    cfg = tiny_config(work_dir, epochs, resume, custom_hooks=[dict(type='knet_plugin.ValidationReportHook')],
                      checkpoint=dict(save_best='mIoU', rule='greater', **checkpoint))
    cfg.update(val_dataloader=cfg.test_dataloader, val_cfg=dict(), val_evaluator=dict(type='Scores'),
               test_evaluator=dict(type='Scores'))
    return cfg


@pytest.fixture
def drawn(monkeypatch) -> list:
    """Arguments of the curves that would be drawn."""
    calls: list = []
    monkeypatch.setattr(validation_report, 'draw_curves', lambda *arguments: calls.append(arguments))
    return calls


def test_table_after_each_validation(tmp_path, monkeypatch, capsys, drawn):
    monkeypatch.setattr(Scores, 'values', [10., 30., 20., 5., 6., 7., 8.])
    with quiet_console():
        Runner.from_cfg(config(tmp_path / 'run', 7)).train()
    table = capsys.readouterr().out.split('mIoU   aAcc\n')[-1].splitlines()
    assert [line.split()[1] for line in table[:6]] == ['4', '6', '8', '10', '12', '14']  # the best and the last five
    assert ['best' in line for line in table[:6]] == [True] + 5 * [False]
    assert 'best_mIoU_epoch_2.pth' in table[6] and 'curves.png' in table[6]
    assert (tmp_path / 'run/best_mIoU_epoch_2.pth').is_file()
    rows = read_validations(tmp_path / 'run/validations.jsonl')
    assert rows[1] == dict(iter=4, mIoU=30., aAcc=50.) and len(rows) == 7
    assert [len(arguments[2]['loss']) for arguments in drawn] == [2, 4, 6, 8, 10, 12, 14, 14]
    assert drawn[-1][5] == ('mIoU', 4)


def test_a_resumed_training_continues_its_curves(tmp_path, monkeypatch, drawn):
    monkeypatch.setattr(Scores, 'values', [10., 30., 20., 40., 50.])
    Runner.from_cfg(config(tmp_path / 'run', 3)).train()
    Runner.from_cfg(config(tmp_path / 'run', 4, tmp_path / 'run/epoch_2.pth')).train()
    rows = read_validations(tmp_path / 'run/validations.jsonl')
    assert [(row['iter'], row['mIoU']) for row in rows] == [(2, 10.), (4, 30.), (6, 40.), (8, 50.)]
    assert len(drawn[-1][2]['loss']) == drawn[-1][3] == 8


def test_a_new_training_begins_new_curves(tmp_path, monkeypatch, drawn):
    monkeypatch.setattr(Scores, 'values', [10., 30.])
    for _ in range(2):
        Runner.from_cfg(config(tmp_path / 'run', 1)).train()
    assert [row['mIoU'] for row in read_validations(tmp_path / 'run/validations.jsonl')] == [30.]


def test_a_validation_without_the_score_changes_nothing(tmp_path, monkeypatch, drawn):
    """mmdet reports no mask AP if there is no prediction at all."""
    monkeypatch.setattr(Scores, 'values', [None, 10., None])
    Runner.from_cfg(config(tmp_path / 'run', 3)).train()
    assert (tmp_path / 'run/best_mIoU_epoch_2.pth').is_file()


def test_scores_of_a_test(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Scores, 'values', [10.])
    with quiet_console():
        Runner.from_cfg(config(tmp_path / 'run', 1)).test()
    assert capsys.readouterr().out.split()[-3:] == ['test', '10.0', '50.0']


def test_no_curves_are_no_reason_to_stop(tmp_path, monkeypatch, capsys):
    def fail(*arguments) -> None:
        raise ModuleNotFoundError('no matplotlib')

    monkeypatch.setattr(validation_report, 'draw_curves', fail)
    monkeypatch.setattr(Scores, 'values', [10.])
    cfg = config(tmp_path / 'run', 1)
    cfg.log_level = 'INFO'
    with quiet_console():
        Runner.from_cfg(cfg).train()
    assert 'no matplotlib' in capsys.readouterr().out


@pytest.mark.parametrize('iterations', [0, 1, 7, 2001])
def test_curves_are_a_picture(iterations, tmp_path):
    values = np.linspace(5, 0, iterations)
    scores = dict(PQ=[(10, 1.), (20, 2.)], mIoU=[(20, 30.)]) if iterations else {}
    draw_curves(tmp_path / 'curves.png', 'run', dict(loss=values, mask=values / 2, odd=values * np.nan), 2001, scores,
                ('PQ', 20) if scores else None)
    picture = cv2.imread(str(tmp_path / 'curves.png'))
    assert picture.shape[1] >= 1000 and picture.std() > 5
    assert [path.name for path in tmp_path.iterdir()] == ['curves.png']


def test_scores_in_percent():
    panoptic = {'coco_panoptic/PQ': 12.5, 'coco_panoptic/SQ': 80., 'coco/segm_mAP': 0.25, 'coco/segm_mAP_l': -1.,
                'mIoU': 30., 'aAcc': 50.}
    assert percent_scores(panoptic) == {'PQ': 12.5, 'mask AP': 25., 'mIoU': 30.}
    assert percent_scores({'mIoU': 30., 'aAcc': 50.}) == {'mIoU': 30., 'aAcc': 50.}


def test_scores_that_cannot_be_computed_are_left_out():
    assert percent_scores({'coco/segm_mAP': 0.5, 'coco/segm_mAP_75': -1.}) == {'mask AP': 50.}


def test_unknown_metrics_stay_as_they_are():
    assert percent_scores({'count': 4, 'names': ['a']}) == {'count': 4.}


def test_table():
    lines = score_table({'iter 5': {'PQ': 1.25, 'mIoU': 2.}, 'iter 10': {'PQ': 3.}}, 'iter 10').splitlines()
    assert [line.split() for line in lines] == [['PQ', 'mIoU'], ['iter', '5', '1.2', '2.0'],
                                                ['iter', '10', '3.0', '*', 'best']]
    assert lines[1].index('1.2') == lines[2].index('3.0')
