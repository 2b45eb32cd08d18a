"""Measure the package against the hosts' own parts, other models and the plain equations, side by side.

    python tools/benchmark.py head readout fpn scaling profile train model    # 40 minutes on two CPU cores
    python tools/benchmark.py model --device cuda

Every contender lives in a process of its own. They take turns, one run each, so that whatever else slows the machine
down slows all of them. What counts is the ratio of two medians of one run of this tool. Rows go to a CSV and a JSON
file, goals and their ratios to a table and a plot.
"""

import argparse
import csv
import json
import multiprocessing
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import matplotlib
import mmcv
import mmdet
import mmengine
import mmseg
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from knet_plugin import __version__
from knet_plugin.hosts import installed_family

ROOT = Path(__file__).resolve().parents[1]
MODES = ('head', 'readout', 'fpn', 'train', 'scaling', 'profile', 'model')
PAGE = ROOT / 'docs/benchmarks.md'
BEGIN, END = '<!-- figures: written by tools/benchmark.py -->', '<!-- end of the figures -->'
COLUMNS = ('mode', 'setting', 'contender', 'seconds', 'low', 'high', 'kept', 'peak', 'products', 'runs')


def work(index: int, device_name: str, threads: int, pipe: Any) -> None:
    """A process: build one case, then do what comes through the pipe until None does."""
    sys.path.insert(0, str(ROOT / 'tools'))
    torch.set_num_threads(threads)
    try:
        from benchmark_cases import CASES

        device = torch.device(device_name)
        if device.type == 'cuda':
            torch.cuda.set_device(device)
        measured = CASES[index].build(device)
        pipe.send(None)
        while (task := pipe.recv()) is not None:
            tasks = dict(time=lambda: seconds(measured.step, device), memory=lambda: memory(measured, device),
                         products=lambda: products(measured.step))
            pipe.send(tasks[task]())
    except EOFError:
        pass
    except Exception as error:
        pipe.send(RuntimeError(f'{type(error).__name__}: {error}'))


def seconds(step: Any, device: torch.device) -> float:
    """One run."""
    if device.type == 'cuda':
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        step()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def memory(measured: Any, device: torch.device) -> dict[str, float]:
    """Bytes above those before: what the forward pass keeps alive, and the most that a step ever holds."""
    step, forward = measured
    result = {}
    if device.type == 'cuda':
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        result['peak'] = torch.cuda.max_memory_allocated() - before
        if forward is not None:
            kept = forward()
            result['kept'] = torch.cuda.memory_allocated() - before
            del kept
        return result
    result['peak'] = float(max(allocations(step), default=0))
    if forward is not None:
        held: list[Any] = []
        result['kept'] = float(allocations(lambda: held.append(forward()))[-1])
    return result


def allocations(function: Any) -> list[int]:
    """Bytes that torch holds on the CPU, above those before, after each of its allocations and releases."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    events = sorted((event.start_ns(), event.nbytes()) for event in profiler.profiler.kineto_results.events()
                    if event.name() == '[memory]')
    return list(np.cumsum([size for _, size in events])) if events else []


def products(step: Any) -> float:
    """Multiply-adds of all convolutions and products."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / 2


class Contender:
    """A case in its process."""

    def __init__(self, index: int, case: Any, device: str, threads: int) -> None:
        self.case = case
        context = multiprocessing.get_context('spawn')
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=work, args=(index, device, threads, other), daemon=True)
        self.process.start()
        other.close()
        self.times: list[float] = []
        self.receive()

    def receive(self) -> Any:
        """What the process answers."""
        try:
            answer = self.pipe.recv()
        except EOFError:
            raise RuntimeError(f'the process of {self.case.contender} ended ({self.case.setting})') from None
        if isinstance(answer, RuntimeError):
            raise RuntimeError(f'{self.case.contender} failed ({self.case.setting}): {answer}')
        return answer

    def ask(self, task: str | None) -> Any:
        """Let the process do something."""
        self.pipe.send(task)
        return None if task is None else self.receive()

    def row(self, with_memory: bool) -> dict[str, Any]:
        """Its figures: seconds (median, first and last decile), MiB."""
        low, *_, high = quantiles(self.times, n=10, method='inclusive')
        row = dict(mode=self.case.mode, setting=self.case.setting, contender=self.case.contender,
                   seconds=median(self.times), low=low, high=high, kept=None, peak=None, products=None,
                   runs=len(self.times))
        if self.case.mode == 'profile':
            row['products'] = self.ask('products')
        if with_memory:
            row |= {name: value / 2**20 for name, value in self.ask('memory').items()}
        return row


def measure(contenders: Sequence[Contender], runs: int, with_memory: bool) -> list[dict[str, Any]]:
    """Take turns: one run each to warm up, then ``runs`` each."""
    for turn in range(runs + 1):
        for contender in contenders:
            taken = contender.ask('time')
            if turn:
                contender.times.append(taken)
    rows = [contender.row(with_memory) for contender in contenders]
    for contender in contenders:
        contender.ask(None)
        contender.process.join()
    return rows


def machine(device: str, threads: int) -> dict[str, str]:
    """What the figures were measured on."""
    lines = Path('/proc/cpuinfo').read_text().splitlines() if Path('/proc/cpuinfo').exists() else []
    cpu = next((line.split(':')[1].strip() for line in lines if line.startswith('model name')), platform.processor())
    return dict(device=torch.cuda.get_device_name(device) if device.startswith('cuda') else f'{cpu}, {threads} threads',
                python=platform.python_version(), torch=torch.__version__, mmengine=mmengine.__version__,
                mmcv=mmcv.__version__, mmdet=mmdet.__version__, mmseg=mmseg.__version__, knet_plugin=__version__,
                family=installed_family())


def verdicts(rows: Iterable[dict[str, Any]], goals: Iterable[Any]) -> list[dict[str, Any]]:
    """Ratios of ours to others, beside what they should be at most."""
    figures = {(row['mode'], row['setting'], row['contender']): row for row in rows}
    result = []
    for goal in goals:
        ours = figures.get((goal.mode, goal.setting, goal.contender))
        theirs = figures.get((goal.mode, goal.setting, goal.versus))
        if ours and theirs and theirs[goal.quantity]:
            ratio = ours[goal.quantity] / theirs[goal.quantity]
            result.append(dict(mode=goal.mode, setting=goal.setting, quantity=goal.quantity, ours=ours[goal.quantity],
                               versus=goal.versus, theirs=theirs[goal.quantity], ratio=ratio, goal=goal.limit,
                               met=bool(ratio <= goal.limit)))
    return result


def slopes(rows: Sequence[dict[str, Any]]) -> list[str]:
    """How the stages' time grows with N and S, as the exponent of a power law, and a training step's with objects."""
    lines = []
    for few in rows:
        for many in rows:
            if (few['setting'].replace(' 10 objects', ' 60 objects') == many['setting'] != few['setting']
                    and few['contender'] == many['contender']):
                ratio = many['seconds'] / few['seconds']
                lines.append(f'{few["setting"].split(",")[0]}, {few["contender"]}: with 60 objects an image a step '
                             f'takes {ratio:.2f} times as long as with 10, solver included')
    for name in ('N', 'S'):
        points = []
        for row in rows:
            values = dict(part.split(' = ') for part in row['setting'].split(', ')) if row['mode'] == 'scaling' else {}
            if values and values['S' if name == 'N' else 'N'] == ('3' if name == 'N' else '100'):
                points.append((int(values[name]), row['seconds']))
        if len(points) > 1:
            points.sort()
            sizes, times = np.log(points).T
            lines.append(f'time ~ {name}^{np.polyfit(sizes, times, 1)[0]:.2f} ({name} = {points[0][0]} to '
                         f'{points[-1][0]}: {1000 * points[0][1]:.1f} to {1000 * points[-1][1]:.1f} ms)')
    return lines


def profile(rows: Sequence[dict[str, Any]], rate: str) -> str:
    """Where the time goes, and what its products alone would take at the rate of a plain one, as Markdown."""
    figures = {row['contender']: row for row in rows if row['mode'] == 'profile'}
    if rate not in figures:
        return ''
    speed = figures[rate]['products'] / figures[rate]['seconds']
    lines = [f'Products alone: {speed / 1e9:.0f} G multiply-adds a second ({rate}).', '',
             '| part | time | multiply-adds | products alone | time / products alone |', '|---' * 5 + '|']
    for name, row in figures.items():
        if name != rate:
            floor = row['products'] / speed
            lines.append(f'| {name} | {1000 * row["seconds"]:,.1f} ms | {row["products"] / 1e9:,.2f} G | '
                         f'{1000 * floor:,.1f} ms | {row["seconds"] / floor if floor else float("nan"):.2f} |')
    return '\n'.join(lines).replace('nan', '-')


def write_page(folder: Path, page: Path, goals: Iterable[Any], rate: str) -> None:
    """Put what the JSON files of a folder hold between the marks of a page, and the plot beside it."""
    results = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob('*.json'))}
    sections, all_verdicts = [], []
    for mode in (mode for mode in MODES if mode in results):
        found = verdicts(results[mode]['rows'], goals)
        all_verdicts += found
        text = '\n\n'.join(part for part in (table(found) if found else '', '\n'.join(
            f'- {line}' for line in slopes(results[mode]['rows'])), profile(results[mode]['rows'], rate)) if part)
        about = ', '.join(f'{name} {value}' if name not in ('device', 'family') else value
                          for name, value in results[mode]['machine'].items())
        runs = results[mode]['rows'][0]['runs']
        sections.append(f'### `{mode}`\n\n{about}; median of {runs} runs.\n\n{text}')
    before, _, rest = page.read_text().partition(BEGIN)
    body = '\n\n'.join(sections)
    page.write_text(f'{before}{BEGIN}\n\n{body}\n\n{END}{rest.partition(END)[2]}')
    plot(all_verdicts, page.with_suffix('.png'))


def table(results: Sequence[dict[str, Any]]) -> str:
    """The verdicts as Markdown."""
    lines = ['| setting | quantity | ours | against | theirs | ratio | goal | met |', '|---' * 8 + '|']
    for row in results:
        unit, factor, digits = ('ms', 1000, 1) if row['quantity'] == 'seconds' else ('MiB', 1, 0)
        quantity = 'time' if row['quantity'] == 'seconds' else f'memory, {row["quantity"]}'
        lines.append(f'| {row["setting"]} | {quantity} | {factor * row["ours"]:,.{digits}f} {unit} | {row["versus"]} | '
                     f'{factor * row["theirs"]:,.{digits}f} {unit} | {row["ratio"]:.2f} | {row["goal"]:.2f} | '
                     f'{"yes" if row["met"] else "no"} |')
    return '\n'.join(lines)


def plot(results: Sequence[dict[str, Any]], path: Path) -> None:
    """One bar for each ratio, green where it is low enough, and a tick at the goal."""
    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(11, 0.28 * len(results) + 1.2))
    positions = range(len(results))
    axes.barh(positions, [row['ratio'] for row in results], color=['#3a8' if row['met'] else '#c54' for row in results])
    axes.plot([row['goal'] for row in results], positions, 'k|', markersize=11, label='goal')
    axes.set_yticks(positions, [f'{row["setting"]}: {row["quantity"]} / {row["versus"]}' for row in results],
                    fontsize=7)
    axes.axvline(1, color='0.5', linewidth=0.8)
    axes.set_ylim(len(results) - 0.4, -0.6)
    axes.set_xlabel('ratio, ours / theirs')
    axes.legend(loc='lower right')
    figure.savefig(path, dpi=110, bbox_inches='tight')


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('modes', nargs='*', help=f'of {", ".join(MODES)}')
    parser.add_argument('--device', default='cpu', help='cpu, cuda or cuda:1')
    parser.add_argument('--threads', type=int, default=2, help='CPU threads of torch')
    parser.add_argument('--runs', type=int, default=7, help='of every contender, after one to warm up')
    parser.add_argument('--only', default='', help='settings that contain this')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmark'))
    parser.add_argument('--page', action='store_true', help='write docs/benchmarks.md from all that --out holds')
    args = parser.parse_args()
    if unknown := sorted(set(args.modes) - set(MODES)):
        parser.error(f'unknown modes {unknown}; known are {", ".join(MODES)}')
    if args.runs < 2:
        parser.error(f'--runs must be at least 2, got {args.runs}')
    sys.path.insert(0, str(ROOT / 'tools'))
    from benchmark_cases import GOALS, RATE, cases

    args.out.mkdir(parents=True, exist_ok=True)
    about = machine(args.device, args.threads)
    print(about)
    for mode in args.modes:
        chosen = [(i, case) for i, case in cases(mode) if args.only in case.setting]
        rows: list[dict[str, Any]] = []
        for setting in dict.fromkeys(case.setting for _, case in chosen):
            contenders = [Contender(i, case, args.device, args.threads) for i, case in chosen
                          if case.setting == setting]
            rows += measure(contenders, args.runs, with_memory=mode in ('head', 'train'))
            for row in rows[-len(contenders):]:
                print('  '.join(f'{name}={value:.4g}' if isinstance(value, float) else f'{value}'
                                for name, value in row.items() if value is not None), flush=True)
        with (args.out / f'{mode}.csv').open('w', newline='') as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        results = verdicts(rows, GOALS)
        (args.out / f'{mode}.json').write_text(json.dumps(dict(machine=about, rows=rows, goals=results), indent=1))
        print('\n'.join(slopes(rows)), profile(rows, RATE), sep='\n')
        if results:
            print(table(results))
            plot(results, args.out / f'{mode}.png')
    if args.page:
        write_page(args.out, PAGE, GOALS, RATE)


if __name__ == '__main__':
    main()
