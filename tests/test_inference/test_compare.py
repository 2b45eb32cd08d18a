"""What changed from one report to the other."""

import csv
import json
import sys

import pytest
from small_predictors import tool


def report(folder, score, images):
    folder.mkdir(parents=True)
    (folder / 'metrics.json').write_text(json.dumps({'mIoU': score, 'data_time': 1}))
    with (folder / 'images.csv').open('w') as file:
        csv.writer(file).writerows([('image', 'PQ'), *images.items()])


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['compare', *map(str, arguments)])
    return tool('compare').main()


def test_scores_and_the_images_that_changed_most(tmp_path, monkeypatch, capsys):
    report(tmp_path / 'one/test', 50, {'a': 10, 'b': 20, 'c': 30, 'd': 40, 'e': 50})
    report(tmp_path / 'other', 52.5, {'a': 10, 'b': 25, 'c': 20, 'd': 39, 'e': 50.5})
    assert run(monkeypatch, tmp_path / 'one', tmp_path / 'other', '--images', 1) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row for row in rows if row and row[0] in ('mIoU', *'abcde')] == [
        ['mIoU', '50', '52.5', '+2.5'], ['c', '30', '20', '-10'], ['b', '20', '25', '+5']]


def test_a_missing_report_is_named(tmp_path, monkeypatch):
    report(tmp_path / 'one', 50, {})
    assert 'knet test' in run(monkeypatch, tmp_path / 'one', tmp_path / 'other')


def test_a_number_of_images_is_positive(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, 'a', 'b', '--images', 0)
    assert '--images' in capsys.readouterr().err
