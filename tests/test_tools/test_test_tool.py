"""The report on a work folder."""

import csv
import json
import sys

import cv2
import numpy as np
import pytest
from small_predictors import small_run, tool
from small_runs import small_data

from knet_plugin import Predictor
from knet_plugin.export import export_model

EXPECTED = dict(semantic='mIoU', instance='coco/segm_mAP', panoptic='coco_panoptic/PQ')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return small_data(tmp_path_factory.mktemp('data') / 'shapes', 2, 4)


@pytest.mark.parametrize('task', EXPECTED)
def test_report_of_each_task(task, data, tmp_path, monkeypatch, capsys):
    folder = small_run(task, tmp_path / 'run', data)
    monkeypatch.setattr(sys, 'argv', ['test', str(folder), '--pictures', '3', '--score', '0.01'])
    tool('test').main()
    report = folder / 'test'
    assert f'report: {report}' in capsys.readouterr().out
    figures = json.loads((report / 'metrics.json').read_text())
    with (report / 'metrics.csv').open() as file:
        assert {name: float(value) for name, value in list(csv.reader(file))[1:]} == pytest.approx(figures)
    assert EXPECTED[task] in figures
    assert [path.name for path in report.glob('sheet_*')] == ['sheet_1.jpg']
    assert cv2.imread(str(report / 'sheet_1.jpg')).shape[1] == 1600
    with (report / 'confusion.csv').open() as file:
        rows = list(csv.reader(file))
    classes = rows[0][1:]
    assert len(rows) == len(classes) + 1 and classes[-1] == 'none'
    if task != 'instance':
        counted = sum(int(value) for row in rows[1:] for value in row[1:])
        assert 0.9 < counted / (4 * 128 * 128) < 1  # edges are void
    assert (report / 'confusion.png').is_file()
    assert sorted(path.name for path in folder.glob('*.py')) == ['config.py']


@pytest.mark.slow
@pytest.mark.parametrize('task', EXPECTED)
def test_an_exported_model_has_the_same_scores(task, data, tmp_path, monkeypatch):
    folder = small_run(task, tmp_path / 'run', data)
    export_model(Predictor(folder, device='cpu'), tmp_path / 'model.onnx', dynamic=True)
    figures, counts = [], []
    for model, report in (([], 'test'), ([str(tmp_path / 'model.onnx')], 'test-model.onnx')):
        monkeypatch.setattr(sys, 'argv', ['test', str(folder), *model, '--pictures', '3', '--score', '0.01'])
        tool('test').main()
        figures.append(json.loads((folder / report / 'metrics.json').read_text()))
        with (folder / report / 'confusion.csv').open() as file:
            counts.append(np.array([row[1:] for row in csv.reader(file)][1:], int))
    times = {'data_time': 0, 'time': 0}
    assert figures[1] | times == pytest.approx(figures[0] | times, abs=1e-3)
    assert np.abs(counts[1] - counts[0]).sum() < 0.002 * counts[0].sum()  # of random weights, scores are near 0


def test_exported_models_run_in_one_process(monkeypatch, capsys):
    for option in (['--tta'], ['--launcher', 'pytorch']):
        monkeypatch.setattr(sys, 'argv', ['test', 'run', 'model.onnx', *option])
        with pytest.raises(SystemExit):
            tool('test').main()
        assert 'model.onnx is tested in one process, without --tta' in capsys.readouterr().err


@pytest.mark.parametrize('arguments, named', [(['gone'], 'gone'), (['.'], 'config')])
def test_missing_files_are_named(arguments, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['test', *arguments])
    with pytest.raises(SystemExit, match=f'error: .*{named}'):
        tool('test').main()


def test_a_score_is_a_probability(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['test', '.', '--score', '2'])
    with pytest.raises(SystemExit):
        tool('test').main()
    assert '--score' in capsys.readouterr().err
