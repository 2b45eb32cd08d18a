"""``benchmarks/decode_heads.py``: what it measures, that it goes on where it was, and the page it writes."""

import importlib.util
import sys
from dataclasses import replace

import pytest

from knet_plugin.cli import resolve_tool
from knet_plugin.compat import installed_distribution


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """The tool with three algorithms, and with table and page in a folder of its own."""
    spec = importlib.util.spec_from_file_location('knet_tool_decode_heads', resolve_tool('decode_heads'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    fast = next(algorithm for algorithm in module.GENERATIONS['CNN'] if algorithm.name == 'Fast-SCNN')
    fast = replace(fast, size=(64, 64))
    monkeypatch.setattr(module, 'GENERATIONS', {'CNN': (fast, replace(fast, name='Second')),
                                                'attention': (replace(fast, name='Third', needs='no_such_package'), )})
    monkeypatch.setattr(module, 'CSV', tmp_path / 'heads.csv')
    monkeypatch.setattr(module, 'PAGE', tmp_path / 'heads.md')
    module.PAGE.write_text(f'Before.\n{module.BEGIN}\nold\n{module.END}\n\nAfter.\n')
    return module


def run(tool, monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['decode_heads', *arguments])
    tool.main()
    return [row.algorithm for row in tool.read_rows()]


@pytest.fixture
def tried(tool, monkeypatch):
    """Names of the algorithms that are tried, of which the second fails at first."""
    names = []

    def try_algorithm(algorithm):
        names.append(algorithm.name)
        if algorithm.needs == 'interrupt':
            raise KeyboardInterrupt
        works = 'yes' if algorithm.name != 'Second' or names.count('Second') > 1 else 'RuntimeError: no'
        return tool.Row(algorithm.name, installed_distribution(), '64 x 64', *'123456', works, turns='3')

    monkeypatch.setattr(tool, 'try_algorithm', try_algorithm)
    return names


def test_what_is_measured_is_not_measured_again(tool, tried, monkeypatch):
    assert run(tool, monkeypatch) == ['Fast-SCNN', 'Second', 'Third']
    assert run(tool, monkeypatch) == ['Fast-SCNN', 'Second', 'Third']  # the order of before, though the second is new
    assert tried == ['Fast-SCNN', 'Second', 'Third', 'Second']
    run(tool, monkeypatch, '--again', 'Third')
    assert tried[4:] == ['Third']


def test_an_interrupted_run_goes_on(tool, tried, monkeypatch):
    whole = tool.GENERATIONS
    monkeypatch.setattr(tool, 'GENERATIONS', dict(whole, attention=(replace(whole['attention'][0],
                                                                            needs='interrupt'), )))
    with pytest.raises(KeyboardInterrupt):
        run(tool, monkeypatch)
    monkeypatch.setattr(tool, 'GENERATIONS', whole)
    assert run(tool, monkeypatch, '--again') == ['Fast-SCNN', 'Second', 'Third']
    assert tried == ['Fast-SCNN', 'Second', 'Third', 'Second', 'Third']


def test_the_other_familys_rows_stay(tool, tried, monkeypatch):
    other = tool.Row('Fast-SCNN', 'another family', '64 x 64', *'abcdef', 'yes')
    tool.write_rows([other])
    run(tool, monkeypatch)
    assert tried == ['Fast-SCNN', 'Second', 'Third'] and tool.read_rows()[0] == other


def test_only_the_times(tool, tried, monkeypatch):
    tool.write_rows([tool.Row(name, installed_distribution(), '64 x 64', *'123456', works, turns) for name, works, turns in (
        ('Fast-SCNN', 'yes', ''), ('Second', 'yes', '3'), ('Third', 'needs a package', ''))])
    run(tool, monkeypatch, '--seconds')
    first, second, third = tool.read_rows()
    assert not tried
    assert (first.parameters, first.flops_with, first.turns) == ('1', '4', '3')
    assert float(first.seconds) > 0 and float(first.seconds_with) > 0 and first.seconds != '5'
    assert (second.seconds, third.seconds) == ('5', '5')


def test_an_algorithm_is_tried(tool):
    row = tool.try_algorithm(tool.GENERATIONS['CNN'][0])
    assert (row.algorithm, row.size, row.works, row.turns) == ('Fast-SCNN', '64 x 64', 'yes', '3')
    assert (row.parameters, row.parameters_with) == ('1.46', '3.74')
    assert 0 < float(row.flops) < float(row.flops_with)
    assert float(row.seconds) > 0 and float(row.seconds_with) > 0


def test_what_does_not_work_is_a_row(tool):
    assert tool.try_algorithm(tool.GENERATIONS['attention'][0]).works == 'needs no_such_package'
    wrong = replace(tool.GENERATIONS['CNN'][0], changes=(('model.decode_head.in_channels', 'size'), ))
    row = tool.try_algorithm(wrong)
    assert row.works.startswith('AssertionError') and row.parameters == row.seconds == ''


def test_a_misspelt_algorithm(tool, tried, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(tool, monkeypatch, '--again', 'Fcn')
    assert "invalid choice: 'Fcn'" in capsys.readouterr().err and not tried


def test_the_page(tool, tried, monkeypatch):
    run(tool, monkeypatch)
    page = tool.PAGE.read_text()
    assert page.startswith('Before.\n') and page.endswith('\n\nAfter.\n') and 'old' not in page
    line = next(line for line in page.splitlines() if line.startswith('| Fast-SCNN |'))
    assert line.endswith(f'| 64 x 64 | 1 -> 2 | 3 -> 4 | 5 -> 6 | {installed_distribution()} |')
    assert f'{installed_distribution()}: RuntimeError: no |' in page
    run(tool, monkeypatch)
    assert 'RuntimeError' not in tool.PAGE.read_text()


def test_the_table_in_the_docs_is_of_the_measured_rows():
    spec = importlib.util.spec_from_file_location('knet_tool_decode_heads', resolve_tool('decode_heads'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.PAGE.read_text()
    assert page.partition(module.BEGIN)[2].partition(module.END)[0] == f'\n\n{module.table(module.read_rows())}\n'
