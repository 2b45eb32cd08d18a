"""``benchmarks/compare_heads.py``: runs in pieces and in shards, the gains, and the page it writes."""

import argparse
import importlib.util
import sys
from pathlib import Path

import pytest

from knet_plugin.cli import resolve_tool


def load():
    spec = importlib.util.spec_from_file_location('knet_tool_compare_heads', resolve_tool('compare_heads'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """The tool with table, plot and page in a folder of its own, and with trainings that take no time."""
    module = load()
    for name, file in (('CSV', 'heads.csv'), ('PLOT', 'heads.png'), ('PAGE', 'heads.md')):
        monkeypatch.setattr(module, name, tmp_path / file)
    module.PAGE.write_text(f'Before.\n{module.BEGIN}\nold\n{module.END}\nAfter.\n')
    module.trained = []

    def train(algorithm, generation, with_knet, seed, args):
        module.trained.append((algorithm, with_knet, seed))
        return dict(algorithm=algorithm, generation=generation, model='knet' if with_knet else 'plain', seed=seed,
                    iterations=args.iterations, miou=f'{40 + 2 * with_knet + seed:.2f}')

    monkeypatch.setattr(module, 'train', train)
    return module


def run(tool, monkeypatch, *arguments):
    tool.trained.clear()
    monkeypatch.setattr(sys, 'argv', ['compare_heads', *arguments])
    tool.main()
    return list(tool.trained)


def test_what_is_trained_is_not_trained_again(tool, monkeypatch):
    arguments = ('--only', 'FCN', 'Segmenter')
    everything = run(tool, monkeypatch, *arguments)
    assert everything == [(name, knet, seed) for seed in (0, 1) for name in ('FCN', 'Segmenter')
                          for knet in (False, True)]
    assert run(tool, monkeypatch, *arguments) == []
    lines = tool.CSV.read_text().splitlines(keepends=True)
    tool.CSV.write_text(''.join(lines[:3] + lines[4:]))  # interrupted, say
    assert run(tool, monkeypatch, *arguments) == [('Segmenter', False, 0)]
    assert len(run(tool, monkeypatch, *arguments, '--iterations', '1200')) == 8


def test_shards_share_the_runs(tool, monkeypatch):
    """A pair of runs, without and with K-Net, is of one shard."""
    arguments = ('--only', 'FCN', 'PSPNet', 'EncNet', '--shard')
    first, second = run(tool, monkeypatch, *arguments, '0/2'), run(tool, monkeypatch, *arguments, '1/2')
    assert len({*first, *second}) == len(first) + len(second) == 12
    assert not {(name, seed) for name, _, seed in first} & {(name, seed) for name, _, seed in second}
    assert run(tool, monkeypatch, *arguments, '0/1') == []


@pytest.mark.parametrize('text', ['x', '1', '2/2', '0/0', '-1/2'])
def test_wrong_shards(tool, monkeypatch, capsys, text):
    with pytest.raises(SystemExit):
        run(tool, monkeypatch, f'--shard={text}')
    assert f"must be I/N with I from 0 to N - 1, got '{text}'" in capsys.readouterr().err


class Unseen(type(Path())):
    """A file that another shard makes just after this one has looked."""

    def exists(self, **kwargs):
        return False


def test_one_header_for_all_shards(tool, monkeypatch):
    row = dict(algorithm='FCN', generation='CNN', model='plain', seed=0, iterations=600, miou='1.00')
    tool.add_row(row)
    monkeypatch.setattr(tool, 'CSV', Unseen(tool.CSV))
    tool.add_row(dict(row, model='knet'))
    assert tool.CSV.read_text().splitlines() == [','.join(tool.COLUMNS), 'FCN,CNN,plain,0,600,1.00',
                                                 'FCN,CNN,knet,0,600,1.00']
    assert [path.name for path in tool.CSV.parent.glob('*.tmp')] == []


def test_gains_are_of_seeds_that_both_models_have(tool):
    rows = [dict(algorithm=name, model=model, seed=seed, iterations=iterations, miou=miou)
            for name, model, seed, iterations, miou in (
                ('SegFormer', 'plain', '0', '600', '20'), ('FCN', 'knet', '1', '600', '35'),
                ('FCN', 'knet', '0', '600', '34'), ('FCN', 'plain', '0', '600', '30'),
                ('FCN', 'plain', '1', '600', '32'), ('FCN', 'knet', '2', '600', '99'),
                ('FCN', 'plain', '0', '1500', '40'), ('FCN', 'knet', '0', '1500', '39'))]
    figures = tool.gains(rows)
    assert figures == {('FCN', 600): dict(plain=[30, 32], knet=[34, 35]), ('FCN', 1500): dict(plain=[40], knet=[39])}
    assert tool.table(figures).splitlines()[-2:] == [
        '| CNN | FCN | 600 | 30.00, 32.00 | 34.00, 35.00 | +3.50 |', '| CNN | FCN | 1,500 | 40.00 | 39.00 | -1.00 |']


def test_page_and_plot(tool, monkeypatch):
    run(tool, monkeypatch, '--only', 'FCN')
    page = tool.PAGE.read_text()
    assert page.startswith('Before.\n') and page.endswith('\nAfter.\n') and 'old' not in page
    assert '| CNN | FCN | 600 | 40.00, 41.00 | 42.00, 43.00 | +2.00 |' in page
    assert tool.PLOT.stat().st_size > 0


def test_a_misspelt_algorithm(tool, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(tool, monkeypatch, '--only', 'Fcn')
    assert "invalid choice: 'Fcn'" in capsys.readouterr().err and not tool.trained


def test_both_models_are_trained_alike(tool, tmp_path):
    args = argparse.Namespace(data_root=tmp_path, work_dir=tmp_path, iterations=100)
    plain, knet = (tool.run_config('Segmenter', with_knet, 1, args) for with_knet in (False, True))
    assert knet.model.decode_head.kernel_generate_head == plain.model.decode_head
    assert knet.optim_wrapper.pop('paramwise_cfg') == dict(custom_keys=dict(kernel_update_head=dict(lr_mult=0.2)))
    for name in ('optim_wrapper', 'train_cfg', 'param_scheduler', 'train_dataloader', 'randomness'):
        assert knet[name] == plain[name], name
    assert plain.resume and knet.resume and plain.work_dir != knet.work_dir


def test_the_table_in_the_docs_is_of_the_rows():
    tool = load()
    page = tool.PAGE.read_text()
    assert page.partition(tool.BEGIN)[2].partition(tool.END)[0] == f'\n\n{tool.table(tool.gains(tool.read_rows()))}\n\n'
