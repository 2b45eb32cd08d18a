"""The benchmark's own arithmetic and its page: what is compared with what, spread, failures, and a run."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import benchmark
import benchmark_cases
import pytest
import torch
from benchmark_cases import Case, Goal, Measured, Parts
from mmengine.structures import InstanceData
from torch import nn

ROOT = Path(__file__).resolve().parents[2]

RATE = 'a plain product'
GOALS = [Goal('head', 'stages', 'seconds', 'ours', 'plain', 0.5, 'because of the map'),
         Goal('head', 'stages', 'kept', 'ours', 'plain', 0.5),
         Goal('train', '60 objects', 'outside', 'ours', 'ours', 1.1, other_setting='10 objects'),
         Goal('model', 'whole (optimised)', 'seconds', 'ours', 'peer', 1.)]


def row(mode, setting, contender, *seconds, **others):
    samples = {'seconds': list(seconds)}
    if 'outside' in others:
        samples['outside'] = others['outside']
        others['outside'] = sorted(others['outside'])[len(seconds) // 2]
    middle = sorted(seconds)[len(seconds) // 2]
    return dict.fromkeys(benchmark.COLUMNS) | dict(mode=mode, setting=setting, contender=contender, seconds=middle,
                                                   low=min(seconds), high=max(seconds), runs=len(seconds),
                                                   samples=samples) | others


ROWS = [row('head', 'stages', 'ours', 1., 2., 3., kept=10., products=60.),
        row('head', 'stages', 'plain', 2., 2., 4., kept=40., products=100.),
        row('train', '10 objects', 'ours', 2., 2., 2., outside=[1., 1., 1.], solver=1.),
        row('train', '60 objects', 'ours', 9., 9., 9., outside=[1.05, 1.05, 1.2], solver=8.),
        row('model', 'whole (optimised, contiguous)', 'ours', 3., 3., 3.),
        row('model', 'whole (optimised, channels-last)', 'ours', 2., 2., 2.),
        row('model', 'whole (optimised, contiguous)', 'peer', 4., 4., 4.),
        row('model', 'whole (optimised, channels-last)', 'peer', 5., 5., 5.)]


def test_verdicts():
    time, kept, outside = benchmark.verdicts(ROWS, GOALS)
    assert (time['ratio'], time['met'], time['products'], time['why']) == (.75, False, .6, 'because of the map')
    assert (time['low'], time['high']) == (.625, .875)  # of 1 / 2, 2 / 2 and 3 / 4: turn by turn
    assert kept['met'] and kept['ratio'] == .25 and kept['low'] is None
    # The solver takes eight times as long, and is not what counts.
    assert outside['met'] and outside['ratio'] == pytest.approx(1.05) and outside['versus'] == 'ours, 10 objects'
    assert benchmark.verdicts(ROWS[:1], GOALS) == []
    assert benchmark.missed_table([kept], ROWS, RATE) == 'Nothing.'
    assert benchmark.missed_table([], ROWS, RATE) == 'No goal has been measured.'
    assert benchmark.verdicts([dict(each, kept=None) for each in ROWS[:2]], GOALS[1:2]) == []


def test_of_every_contender_the_faster_layout_counts():
    rows = benchmark.with_fastest_layouts(ROWS, ('contiguous', 'channels-last'))
    assert rows[:len(ROWS)] == ROWS
    assert [(each['setting'], each['contender'], each['note'], each['seconds']) for each in rows[len(ROWS):]] == [
        ('whole (optimised)', 'ours', 'channels-last', 2.), ('whole (optimised)', 'peer', 'contiguous', 4.)]
    assert benchmark.verdicts(rows, GOALS[3:])[0]['ratio'] == .5


def test_growth_is_the_exponent_of_a_power_law():
    rows = [row('scaling', f'N = {n}, S = 3', 'ours', n / 100, n / 50) for n in (50, 100, 200)]
    rows += [row('scaling', f'N = 100, S = {s}', 'ours', s**2, s**2) for s in (1, 2, 3)]
    linear, steep = benchmark.growth(rows)
    assert linear['setting'].startswith('time ~ N^x') and linear['ratio'] == pytest.approx(1)
    assert steep['ratio'] == pytest.approx(2) and not steep['met']
    assert steep['low'] == pytest.approx(2) and steep['high'] == pytest.approx(2)
    assert benchmark.growth(ROWS) == []


def test_every_goal_is_measured():
    """With the settings of the layouts that are chosen from."""
    known = {(case.mode, case.setting, case.contender) for case in benchmark_cases.CASES}
    known |= {(mode, f'{setting.removesuffix(f", {layout})")})', contender) for mode, setting, contender in known
              for layout in benchmark_cases.LAYOUTS if setting.endswith(f', {layout})')}
    for goal in benchmark_cases.GOALS:
        assert (goal.mode, goal.setting, goal.contender) in known
        assert (goal.mode, goal.other_setting or goal.setting, goal.versus) in known
    assert {case.mode for case in benchmark_cases.CASES} == set(benchmark.MODES)
    assert any(goal.quantity == 'outside' and goal.limit == 1.1 for goal in benchmark_cases.GOALS)


def test_page(tmp_path):
    results = tmp_path / 'results'
    results.mkdir()
    machine = dict(device='a CPU', torch='2', family='forks')
    profile = [row('profile', 'one image', 'FPN', 2., 2., products=10.),
               row('profile', 'one image', 'upsampling', 1., 1., products=0.),
               row('profile', 'one image', RATE, 1., 1., products=10.),
               row('profile', 'a step', 'forward', 1., 1., kept=30., peak=40.),
               row('profile', 'a step', 'backward', 3., 3., kept=-30., peak=50.)]
    for mode, rows in dict(head=ROWS[:2], train=ROWS[2:4], model=ROWS[4:], profile=profile).items():
        (results / f'{mode}.json').write_text(json.dumps(dict(
            machine=machine, rows=rows, goals=[], failures=['whole, other: no compiler'] if mode == 'model' else [])))
    page = tmp_path / 'page.md'
    for before in ('old', 'old, again'):
        page.write_text(f'# Top\n\n{benchmark.BEGIN}\n{before}\n{benchmark.END}\n\nBottom\n')
        benchmark.write_page(results, page, GOALS, RATE, ('contiguous', 'channels-last'))
        text = page.read_text()
        assert text.startswith('# Top\n') and text.endswith('\nBottom\n') and 'old' not in text
    assert '| stages (ours) | time | 2,000.0 ms | plain | 2,000.0 ms | 0.75 (0.62 to 0.88) | 0.50 | no |' in text
    # 60 multiply-adds at 10 a second take 6 s.
    assert ('| `head`: stages, time of ours | plain | 0.75 (0.62 to 0.88) | 0.50 | 0.60 | 0.33 | because of the map |'
            in text)
    assert 'kept of ours' not in text  # what is met is not missed
    assert '| FPN | 2,000.0 ms (2,000.0 to 2,000.0) | 0.00 G | 1,000.0 ms | 2.00 |' in text
    assert '| upsampling | 1,000.0 ms (1,000.0 to 1,000.0) | 0.00 G | 0.0 ms | - |' in text
    assert '| forward | 1,000.0 ms (1,000.0 to 1,000.0) | 25% | 30 MiB | 60% | 40 MiB |' in text
    assert '4,000 ms in all, at most 50 MiB' in text
    assert '| whole (optimised) | peer (contiguous) | 4,000.0 ms (4,000.0 to 4,000.0) |' in text
    assert '- failed: whole, other: no compiler' in text and 'a CPU, torch 2, forks; medians of 3 runs' in text
    with page.with_suffix('.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(ROWS) + len(profile) + 2 and rows[0]['seconds'] == '2.0'
    kept = json.loads(page.with_suffix('.json').read_text())
    assert list(kept) == ['head', 'train', 'profile', 'model']
    assert kept['head']['rows'][0]['samples']['seconds'] == [1, 2, 3]
    assert kept['head']['goals'][0]['ratio'] == .75 and page.with_suffix('.png').stat().st_size


def test_time_outside_the_solver_and_time_of_parts(monkeypatch):
    clocks = {}
    taken = benchmark.seconds(Measured(lambda: clocks.update(solver=0.25), None, clocks), torch.device('cpu'))
    assert taken['outside'] == taken['seconds'] - 0.25 and taken['solver'] == 0.25
    with pytest.raises(RuntimeError, match='never came to the solver'):
        benchmark.seconds(Measured(lambda: None, None, clocks), torch.device('cpu'))
    parts = Parts(torch.device('cpu'))

    def step():
        parts.start()
        held = torch.zeros(2**20)
        torch.zeros(2**19)
        parts('first')
        del held
        parts('second')

    measured = Measured(step, parts=parts)
    assert set(benchmark.seconds(measured, torch.device('cpu'))['parts']) == {'first', 'second'}
    found = benchmark.memory(measured, torch.device('cpu'))
    assert found == dict(peak=6 * 2**20, parts=dict(first=dict(kept=4 * 2**20, peak=6 * 2**20),
                                                    second=dict(kept=-4 * 2**20, peak=4 * 2**20)))


def test_the_solver_is_watched():
    class Assigner:
        def assign_batch(self):
            from knet_plugin.detection import matcher as mask_hungarian_assigner
            return mask_hungarian_assigner.linear_sum_assignment([[1.]])

    from knet_plugin.detection import mask_hungarian_assigner as module
    assigner, solver = Assigner(), module.linear_sum_assignment
    try:
        clocks = benchmark_cases.watch_solver(assigner)
        assert assigner.assign_batch()[0].tolist() == [0]
    finally:
        module.linear_sum_assignment = solver
    assert 0 < clocks['solver'] < clocks['matching']


class FakeCuda:
    """The calls by which memory is measured on a GPU."""

    def __init__(self):
        self.held = self.most = 1000

    def take(self, size):
        self.held += size
        self.most = max(self.most, self.held)

    def memory_allocated(self):
        return self.held

    def max_memory_allocated(self):
        return self.most

    def reset_peak_memory_stats(self):
        self.most = self.held

    def synchronize(self):
        pass


def test_memory_on_a_gpu(monkeypatch):
    fake, device = FakeCuda(), torch.device('cuda')
    for name in ('memory_allocated', 'max_memory_allocated', 'reset_peak_memory_stats', 'synchronize'):
        monkeypatch.setattr(torch.cuda, name, getattr(fake, name))

    def step():
        fake.take(300)
        fake.take(-300)

    assert benchmark.memory(Measured(step), device) == dict(peak=300)
    assert benchmark.memory(Measured(step, lambda: fake.take(50)), device) == dict(peak=300, kept=50)
    parts = Parts(device)

    def parted():
        parts.start()
        fake.take(70)
        parts('first')
        step()
        parts('second')
        fake.take(-70)

    assert benchmark.memory(Measured(parted, parts=parts), device) == dict(parts=dict(
        first=dict(kept=70, peak=70), second=dict(kept=0, peak=370)))


@pytest.mark.parametrize(('mode', 'device', 'expected'), [
    ('readout', 'cpu', True), ('fpn', 'cpu', True), ('model', 'cpu', False), ('model', 'cuda', True),
    ('layout', 'cuda:1', True)])
def test_modes_with_memory(mode, device, expected, monkeypatch):
    asked = []
    monkeypatch.setattr(benchmark, 'Contender', lambda index, case, *args: case)
    monkeypatch.setattr(benchmark, 'measure', lambda contenders, runs, with_memory, warm_up: (
        asked.append(with_memory) or ([], [])))
    assert benchmark.run(mode, '', device, 1, 2) == ([], [])
    assert set(asked) == {expected}


class FakeContender:
    def __init__(self, name, answers):
        self.case = Case('head', 'setting', name, None)
        self.answers, self.noted = iter(answers), []

    def start(self):
        pass

    def ask(self, task):
        answer = next(self.answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def note(self, taken):
        self.noted.append(taken['seconds'])

    def rows(self, with_memory):
        return [dict(contender=self.case.contender, seconds=self.noted)]

    def end(self):
        self.ended = True


def test_a_contender_that_fails_does_not_stop_the_others():
    good = FakeContender('good', [dict(seconds=each) for each in (9, 1, 2)])
    bad = FakeContender('bad', [dict(seconds=9), RuntimeError('no compiler\nand much more')])
    rows, failures = benchmark.measure([good, bad], 2, False)
    assert rows == [dict(contender='good', seconds=[1, 2])]  # the first run warms up
    assert benchmark.measure([FakeContender('good', [dict(seconds=3)])], 1, False, 0)[0][0]['seconds'] == [3]
    assert failures == ['setting, bad: no compiler'] and good.ended and bad.ended


class Scores(nn.Module):
    """Returns as many instances as have a score above the threshold, at most 100, of 200."""

    def __init__(self, config):
        super().__init__()
        self.fc_cls = nn.Linear(4, 1)
        self.test_cfg = config

    def forward(self):
        scores = self.fc_cls(torch.linspace(-1, 1, 800).reshape(1, 200, 4))
        found = int((scores.sigmoid() > self.test_cfg['score_thr']).sum())
        # As suppression does, it loses every fifth.
        return InstanceData(scores=torch.zeros(min(100, found * 4 // 5)))


def test_thresholds_are_lowered_until_100_are_returned():
    from mmengine.config import ConfigDict

    torch.manual_seed(0)
    model = Scores(ConfigDict(score_thr=.999))
    assert len(model()) == 0
    candidates = benchmark_cases._return_100(model, model)
    assert len(model()) == 100 and not model.fc_cls._forward_hooks
    scores = model.fc_cls(torch.linspace(-1, 1, 800).reshape(1, 200, 4)).sigmoid()
    assert 125 <= int((scores > model.test_cfg.score_thr).sum()) == candidates <= 150  # and hardly further
    assert benchmark_cases._return_100(model, model, candidates) == candidates
    with pytest.raises(RuntimeError, match='returns fewer than 100'):
        benchmark_cases._return_100(model, lambda: model()[:50])
    with pytest.raises(RuntimeError, match='Identity returned 3 instances instead of 100'):
        benchmark_cases._return_100(nn.Identity(), lambda: [1, 2, 3])


def contender(mode, answers, runs):
    made = benchmark.Contender(0, Case(mode, 'setting', 'ours', None), 'cpu', 1)
    made.ask = answers.get
    for taken in runs:
        made.note(dict(taken))
    return made


def test_rows():
    answers = dict(memory=dict(kept=2**20, peak=2**21), products=7.)
    runs = [dict(seconds=float(i), outside=i - .5, solver=.5) for i in range(1, 6)]
    found, = contender('head', answers, runs).rows(with_memory=True)
    assert (found['low'], found['seconds'], found['high'], found['runs']) == (2., 3., 4., 5)
    assert (found['kept'], found['peak'], found['products'], found['outside']) == (1., 2., 7., 2.5)
    found, = contender('train', answers, runs).rows(with_memory=False)
    assert found['peak'] is None and found['products'] is None
    answers = dict(memory=dict(peak=9., parts=dict(first=dict(kept=2**20, peak=2**22))))
    runs = [dict(seconds=9., parts=dict(first=1., second=i)) for i in (2., 4.)]
    first, second = contender('profile', answers, runs).rows(with_memory=False)
    assert (first['contender'], first['seconds'], first['kept'], first['peak']) == ('first', 1., 1., 4.)
    assert (second['contender'], second['seconds'], second['kept']) == ('second', 3., None)


@pytest.mark.parametrize(('arguments', 'message'), [
    (['heads'], r"unknown modes \['heads'\]; known are head, "), (['head', '--runs', '1'], '--runs must be at least 2'),
    (['--page', 'head'], 'head must have the lines'),
    (['head', 'scaling', '--only', 'S = 1'], "no setting of head contains --only 'S = 1'; there are 3 stages, "),
    (['head', '--threads', '0'], '--threads must be at least 1, got 0'),
    (['head', '--device', 'cudo'], '--device cudo cannot be used: Expected one of cpu, cuda'),
    (['head', '--device', 'cuda:99'], '--device cuda:99 cannot be used: ')])
def test_wrong_arguments_are_refused_before_anything_is_measured(arguments, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['benchmark.py', *arguments])
    with pytest.raises(SystemExit) as stopped:
        benchmark.main()
    assert re.search(message, capsys.readouterr().err + str(stopped.value)) and not list(tmp_path.iterdir())


def test_the_tool(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text(f'{benchmark.BEGIN}\n{benchmark.END}\n')
    done = subprocess.run(
        [sys.executable, str(ROOT / 'benchmarks/benchmark.py'), 'scaling', '--only', 'S = 1', '--runs', '2',
         '--threads', '1', '--out', str(tmp_path / 'out'), '--page', str(page)], capture_output=True, text=True,
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1'))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / 'out/scaling.json').read_text())['rows']
    assert [each['setting'] for each in rows] == ['N = 100, S = 1']
    assert len(rows[0]['samples']['seconds']) == rows[0]['runs'] == 2
    assert rows[0]['low'] <= rows[0]['seconds'] <= rows[0]['high']
    assert '| N = 100, S = 1 | knet_plugin |' in page.read_text() and (tmp_path / 'page.csv').exists()
