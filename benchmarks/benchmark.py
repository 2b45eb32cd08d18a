"""Measure the package against the hosts' own parts, other models and the plain equations, side by side.

    python benchmarks/benchmark.py all --page    # everything, and docs/benchmarks.md from it
    python benchmarks/benchmark.py model --device cuda

Every contender lives in a process of its own. They take turns, one run each, so that whatever else slows the machine
down slows all of them. What counts is the median of the ratios in single turns. Rows go to a CSV and a JSON
file, goals and their ratios to a table and a plot.
"""

import argparse
import csv
import json
import multiprocessing
import os
import platform
import sys
import tempfile
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
from marked_page import check_marks, replace_between
from torch.utils.flop_counter import FlopCounterMode

from knet_plugin import __version__
from knet_plugin.compat import installed_distribution

ROOT = Path(__file__).resolve().parents[1]
RUNS = dict(head=9, readout=7, fpn=9, train=7, scaling=15, profile=7, layout=5, model=7)
"""Modes, in the order of the page, and how often every contender runs."""
MODES = tuple(RUNS)
MEMORY_ON_CPU = ('head', 'readout', 'fpn', 'train')
"""Modes whose memory is measured on a CPU, too, where it takes a slow run under the profiler."""
COUNTED = ('head', 'fpn', 'profile')
"""Modes whose multiply-adds are counted."""
PAGE = ROOT / 'docs/benchmarks.md'
BEGIN, END = '<!-- figures: written by benchmarks/benchmark.py -->', '<!-- end of the figures -->'
COLUMNS = ('mode', 'setting', 'contender', 'seconds', 'low', 'high', 'outside', 'solver', 'matching', 'kept', 'peak',
           'products', 'runs', 'note')
NAMES = dict(seconds='time', outside='time outside the solver', kept='memory, kept', peak='memory, peak',
             exponent='exponent')


def work(index: int, device_name: str, threads: int, pipe: Any) -> None:
    """A process: build one case, then do what comes through the pipe, until it is ended."""
    sys.path.insert(0, str(ROOT / 'tools'))
    try:
        from benchmark_cases import CASES

        torch.set_num_threads(threads)

        device = torch.device(device_name)
        if device.type == 'cuda':
            torch.cuda.set_device(device)
        measured = CASES[index].build(device)
        pipe.send(None)
        tasks = dict(time=lambda: seconds(measured, device), memory=lambda: memory(measured, device),
                     products=lambda: products(measured.step))
        while True:
            pipe.send(tasks[pipe.recv()]())
    except EOFError:
        pass
    except Exception as error:
        pipe.send(RuntimeError(f'{type(error).__name__}: {error}'))


def seconds(measured: Any, device: torch.device) -> dict[str, Any]:
    """One run: its seconds, what the case's own clocks say, and the seconds of its parts."""
    if measured.clocks is not None:
        measured.clocks.clear()
    if device.type == 'cuda':
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        measured.step()
        end.record()
        torch.cuda.synchronize()
        taken = start.elapsed_time(end) / 1000
    else:
        begin = time.perf_counter()
        measured.step()
        taken = time.perf_counter() - begin
    result: dict[str, Any] = dict(seconds=taken)
    if measured.clocks is not None:
        if 'solver' not in measured.clocks:
            raise RuntimeError('the step never came to the solver whose time is to be subtracted')
        result |= dict(measured.clocks, outside=taken - measured.clocks['solver'])
    if measured.parts is not None:
        result['parts'] = dict(measured.parts.seconds)
    return result


def memory(measured: Any, device: torch.device) -> dict[str, Any]:
    """Bytes above those before: what the forward pass keeps alive, and the most that a step ever holds. Of a part of a
    step: what it leaves behind, and the most that the step holds within it.
    """
    result: dict[str, Any] = {}
    if device.type == 'cuda':
        if measured.parts is not None:
            measured.step()
            return dict(parts=measured.parts.memory)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        measured.step()
        torch.cuda.synchronize()
        result['peak'] = torch.cuda.max_memory_allocated() - before
        if measured.forward is not None:
            kept = measured.forward()
            result['kept'] = torch.cuda.memory_allocated() - before
            del kept
        return result
    trace = allocations(measured.step)
    result['peak'] = float(max((held for _, held in trace), default=0))
    if measured.parts is not None:
        result['parts'] = memory_of_parts(trace)
    if measured.forward is not None:
        held: list[Any] = []
        result['kept'] = float(allocations(lambda: held.append(measured.forward()))[-1][1])
    return result


def allocations(function: Any) -> list[tuple[str, int]]:
    """Bytes that torch holds on the CPU, above those before, after each of its allocations and releases, and, with its
    name, at the end of each part.
    """
    from benchmark_cases import PART

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    events = profiler.profiler.kineto_results.events()
    trace, held = [], 0
    # torch below 2.4 tells microseconds only; events of the same one keep their order.
    for event in sorted(events, key=lambda event: event.start_ns() if hasattr(event, 'start_ns') else event.start_us()):
        if event.name() == '[memory]':
            held += event.nbytes()
            trace.append(('', held))
        elif event.name().startswith(PART):
            trace.append((event.name()[len(PART):], held))
    return trace


def memory_of_parts(trace: Sequence[tuple[str, int]]) -> dict[str, dict[str, float]]:
    """By part: bytes that it leaves behind, and the most that is held within it."""
    result, before, peak = {}, 0, 0
    for name, held in trace:
        peak = max(peak, held)
        if name:
            result[name] = dict(kept=float(held - before), peak=float(peak))
            before = peak = held
    return result


def products(step: Any) -> float:
    """Multiply-adds of all convolutions and products."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / 2


class Contender:
    """A case in its process."""

    def __init__(self, index: int, case: Any, device: str, threads: int) -> None:
        self.case = case
        # What CUDA has begun cannot be forked; elsewhere, one process imports everything for all.
        context: Any = multiprocessing.get_context('spawn' if device.startswith('cuda') else 'forkserver')
        self.pipe, self.other = context.Pipe()
        self.process = context.Process(target=work, args=(index, device, threads, self.other), daemon=True)
        self.samples: dict[str, list[float]] = {}
        self.parts: dict[str, list[float]] = {}

    def start(self) -> None:
        """Let the process build its case: one at a time, since some need much memory for it."""
        self.process.start()
        self.other.close()
        self.receive()

    def receive(self) -> Any:
        """What the process answers."""
        try:
            answer = self.pipe.recv()
        except EOFError:
            raise RuntimeError('the process ended') from None
        if isinstance(answer, RuntimeError):
            raise answer
        return answer

    def ask(self, task: str) -> Any:
        """Let the process do something."""
        self.pipe.send(task)
        return self.receive()

    def note(self, taken: dict[str, Any]) -> None:
        """Keep what one run took."""
        for part, value in taken.pop('parts', {}).items():
            self.parts.setdefault(part, []).append(value)
        for quantity, value in taken.items():
            self.samples.setdefault(quantity, []).append(value)

    def rows(self, with_memory: bool) -> list[dict[str, Any]]:
        """Its figures, or those of its parts: seconds (median and quartiles), MiB, multiply-adds."""
        found = self.ask('memory') if with_memory or self.parts else {}
        of_parts = found.pop('parts', {})
        if self.parts:
            return [self._row(part, dict(seconds=values), of_parts.get(part, {}))
                    for part, values in self.parts.items()]
        row = self._row(self.case.contender, self.samples, found)
        if self.case.mode in COUNTED:
            row['products'] = self.ask('products')
        return [row]

    def _row(self, name: str, samples: dict[str, list[float]], found: dict[str, float]) -> dict[str, Any]:
        low, _, high = quantiles(samples['seconds'], n=4, method='inclusive')
        row = dict.fromkeys(COLUMNS) | dict(mode=self.case.mode, setting=self.case.setting, contender=name, low=low,
                                            high=high, runs=len(samples['seconds']), samples=samples)
        return row | {quantity: median(values) for quantity, values in samples.items()} | {
            quantity: value / 2**20 for quantity, value in found.items()}

    def end(self) -> None:
        """Let the process end."""
        if self.process.pid is not None:
            self.process.terminate()
            self.process.join()


def measure(contenders: Sequence[Contender], runs: int, with_memory: bool,
            warm_up: int = 1) -> tuple[list[dict[str, Any]], list[str]]:
    """Take turns: ``warm_up`` runs each that do not count, then ``runs`` each.

    Returns:
        The rows, and what failed, in words: a contender that fails is left out from then on.
    """
    failures: list[str] = []

    def attempt(contender: Contender, function: Any) -> Any:
        try:
            return function()
        except (RuntimeError, OSError) as error:
            failures.append(f'{contender.case.setting}, {contender.case.contender}: {error}'.splitlines()[0])
            print('FAILED', failures[-1], flush=True)
            active.remove(contender)

    active = list(contenders)
    for contender in contenders:
        attempt(contender, contender.start)
    for turn in range(-warm_up, runs):
        for contender in list(active):
            taken = attempt(contender, lambda contender=contender: contender.ask('time'))  # type: ignore[misc]
            if turn >= 0 and taken:
                contender.note(taken)
    rows = []
    for contender in list(active):
        rows += attempt(contender, lambda contender=contender: contender.rows(with_memory)) or []  # type: ignore[misc]
    for contender in contenders:
        contender.end()
    return rows, failures


def machine(device: str, threads: int) -> dict[str, str]:
    """What the figures were measured on."""
    lines = Path('/proc/cpuinfo').read_text().splitlines() if Path('/proc/cpuinfo').exists() else []
    cpu = next((line.split(':')[1].strip() for line in lines if line.startswith('model name')), platform.processor())
    return dict(device=torch.cuda.get_device_name(device) if device.startswith('cuda') else f'{cpu}, {threads} threads',
                python=platform.python_version(), torch=torch.__version__, mmengine=mmengine.__version__,
                mmcv=mmcv.__version__, mmdet=mmdet.__version__, mmseg=mmseg.__version__, knet_plugin=__version__,
                family=installed_distribution())


def with_fastest_layouts(rows: Sequence[dict[str, Any]], layouts: Sequence[str]) -> list[dict[str, Any]]:
    """The rows, and for every contender that was measured in several memory layouts its fastest, as a row of the
    setting without the layout's name.
    """
    fastest: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        for layout in layouts:
            if row['setting'].endswith(f', {layout})'):
                setting = row['setting'].removesuffix(f', {layout})') + ')'
                known = fastest.get((setting, row['contender']))
                if known is None or row['seconds'] < known['seconds']:
                    fastest[setting, row['contender']] = dict(row, setting=setting, note=layout)
    return [*rows, *fastest.values()]


def spread(values: Sequence[float]) -> tuple[float, float, float] | None:
    """Quartiles, the median between them; None of fewer than two values."""
    if len(values) < 2:
        return None
    low, middle, high = quantiles(values, n=4, method='inclusive')
    return low, middle, high


def verdicts(rows: Iterable[dict[str, Any]], goals: Iterable[Any]) -> list[dict[str, Any]]:
    """Ratios of ours to others, and what they should be at most.

    A ratio is the median of those in single turns, beside which their quartiles stand; memory has one figure only.
    """
    figures = {(row['mode'], row['setting'], row['contender']): row for row in rows}
    result = []
    for goal in goals:
        ours = figures.get((goal.mode, goal.setting, goal.contender))
        theirs = figures.get((goal.mode, goal.other_setting or goal.setting, goal.versus))
        if ours and theirs and ours.get(goal.quantity) is not None and theirs.get(goal.quantity):
            turns = [one / other for one, other in zip(*(row.get('samples', {}).get(goal.quantity, ())
                                                         for row in (ours, theirs)), strict=False)]
            low, ratio, high = spread(turns) or (None, ours[goal.quantity] / theirs[goal.quantity], None)
            counted = ours.get('products') and theirs.get('products')
            result.append(dict(mode=goal.mode, setting=goal.setting, contender=goal.contender, quantity=goal.quantity,
                               ours=ours[goal.quantity],
                               versus=f'{goal.versus}, {goal.other_setting}' if goal.other_setting else goal.versus,
                               theirs=theirs[goal.quantity], ratio=ratio, low=low, high=high, goal=goal.limit,
                               met=bool(ratio <= goal.limit),
                               products=ours['products'] / theirs['products'] if counted else None, why=goal.why))
    return result


def growth(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How the stages' time grows with N and S, as verdicts: the exponent of a power law, which should be 1 at most, as
    the median of the turns.
    """
    results = []
    for name, other, fixed in (('N', 'S', '3'), ('S', 'N', '100')):
        points = {}
        for row in rows:
            values = dict(part.split(' = ') for part in row['setting'].split(', ')) if row['mode'] == 'scaling' else {}
            if values.get(other) == fixed:
                points[int(values[name])] = row
        if len(points) > 1:
            sizes = sorted(points)

            def exponent(times: Sequence[float], sizes: Sequence[int] = sizes) -> float:
                return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])

            turns = [exponent(times) for times in zip(*(
                points[size].get('samples', {}).get('seconds', ()) for size in sizes), strict=False)]
            low, slope, high = spread(turns) or (None, exponent([points[size]['seconds'] for size in sizes]), None)
            results.append(dict(
                mode='scaling', setting=f'time ~ {name}^x, {name} = {sizes[0]} to {sizes[-1]}, {other} = {fixed}',
                contender=points[sizes[0]]['contender'], quantity='exponent', ours=points[sizes[-1]]['seconds'],
                versus=f'{name} = {sizes[0]}', theirs=points[sizes[0]]['seconds'], ratio=slope, low=low, high=high,
                goal=1., met=bool(slope <= 1), products=None, why='every stage does the same' if name == 'S' else ''))
    return results


def speed(rows: Iterable[dict[str, Any]], rate: str) -> float | None:
    """Multiply-adds a second of a plain product, which the profile measures."""
    return next((row['products'] / row['seconds'] for row in rows
                 if row['mode'] == 'profile' and row['contender'] == rate and row.get('products')), None)


def profile(rows: Sequence[dict[str, Any]], rate: str) -> str:
    """Where the time goes, and what its products alone would take at the rate of a plain one, and where the memory of a
    training step goes, as Markdown.
    """
    lines = []
    floor_speed = speed(rows, rate)
    if floor_speed:
        lines += [f'Products alone: {floor_speed / 1e9:,.1f} G multiply-adds a second ({rate}).', '',
                  '| part | time | multiply-adds | products alone | time / products alone |', '|---' * 5 + '|']
        for row in rows:
            if row['mode'] == 'profile' and row.get('products') is not None and row['contender'] != rate:
                floor = row['products'] / floor_speed
                over = format(row['seconds'] / floor, ',.2f') if floor else '-'
                lines.append(f'| {row["contender"]} | {amount(row, "seconds")} | {row["products"] / 1e9:,.2f} G | '
                             f'{1000 * floor:,.1f} ms | {over} |')
    steps: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row['mode'] == 'profile' and row.get('products') is None:
            steps.setdefault(row['setting'], []).append(row)
    for setting, parts in steps.items():
        whole, most = sum(row['seconds'] for row in parts), max(row['peak'] or 0 for row in parts)
        lines += ['', f'Parts of {setting}: {1000 * whole:,.0f} ms in all, at most {most:,.0f} MiB beyond the weights.',
                  '', '| part | time | share | memory left behind | share of the peak | held within it, at most |',
                  '|---' * 6 + '|']
        for row in parts:
            share = f'{(row["kept"] or 0) / most:.0%}' if most else '-'
            lines.append(f'| {row["contender"]} | {amount(row, "seconds")} | {row["seconds"] / whole:.0%} | '
                         f'{amount(row, "kept")} | {share} | {amount(row, "peak")} |')
    return '\n'.join(lines).strip()


def amount(row: dict[str, Any], quantity: str) -> str:
    """A figure with its unit and, for a time, its quartiles; '-' where there is none."""
    value = row.get(quantity)
    if value is None:
        return '-'
    if quantity in ('kept', 'peak'):
        return f'{value:,.0f} MiB'
    quartiles = f' ({1000 * row["low"]:,.1f} to {1000 * row["high"]:,.1f})' if quantity == 'seconds' else ''
    return f'{1000 * value:,.1f} ms{quartiles}'


def figures_table(rows: Sequence[dict[str, Any]]) -> str:
    """All rows as Markdown, also those without a goal; only columns in which one has something."""
    optional = dict(outside='outside the solver', solver='in the solver', matching='matching in all',
                    kept='memory kept', peak='memory peak')
    shown = [name for name in optional if any(row.get(name) is not None for row in rows)]
    counted = any(row.get('products') is not None for row in rows)
    heads = ['setting', 'contender', 'time (quartiles)', *(optional[name] for name in shown)]
    heads += ['multiply-adds'] if counted else []
    lines = [f'| {" | ".join(heads)} |', '|---' * len(heads) + '|']
    for row in rows:
        name = row['contender'] + (f' ({row["note"]})' if row.get('note') else '')
        cells = [row['setting'], name, amount(row, 'seconds'), *(amount(row, column) for column in shown)]
        if counted:
            cells.append('-' if row.get('products') is None else f'{row["products"] / 1e9:,.2f} G')
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def table(results: Sequence[dict[str, Any]]) -> str:
    """The verdicts as Markdown."""
    lines = ['| setting | quantity | ours | against | theirs | ratio (quartiles) | goal | met |', '|---' * 8 + '|']
    for row in results:
        unit, factor, digits = ('MiB', 1, 0) if row['quantity'] in ('kept', 'peak') else ('ms', 1000, 1)
        ours, theirs = (f'{factor * row[side]:,.{digits}f} {unit}' for side in ('ours', 'theirs'))
        lines.append(f'| {row["setting"]}{variant(row)} | {NAMES[row["quantity"]]} | {ours} | {row["versus"]} | '
                     f'{theirs} | {ratio_of(row)} | {row["goal"]:.2f} | {verdict(row)} |')
    return '\n'.join(lines)


def variant(row: dict[str, Any]) -> str:
    """What to add to the setting of a verdict where it is not about the package as it is."""
    return '' if row['contender'] in ('knet_plugin', row['versus']) else f' ({row["contender"]})'


def verdict(row: dict[str, Any]) -> str:
    """Whether the median meets the goal, and whether a quarter of the turns say otherwise."""
    answer = 'yes' if row['met'] else 'no'
    return f'{answer}, just' if row.get('low') is not None and row['low'] <= row['goal'] < row['high'] else answer


def ratio_of(row: dict[str, Any]) -> str:
    """A verdict's ratio with its quartiles."""
    quartiles = '' if row.get('low') is None else f' ({row["low"]:.2f} to {row["high"]:.2f})'
    return f'{row["ratio"]:.2f}{quartiles}'


def missed_table(results: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], rate: str) -> str:
    """What is missed as Markdown: by how much, in how many products, and why."""
    floor_speed = speed(rows, rate)
    figures = {(row['mode'], row['setting'], row['contender']): row for row in rows}
    lines = ['| missed | against | ratio (quartiles) | goal | products, ours / theirs | our time / products alone '
             '| why |', '|---' * 7 + '|']
    for row in results:
        if row['met']:
            continue
        ours = figures.get((row['mode'], row['setting'], row['contender']), {})
        over = '-'
        if row['quantity'] == 'seconds' and floor_speed and ours.get('products'):
            over = f'{ours["seconds"] * floor_speed / ours["products"]:.2f}'
        spared = '-' if row.get('products') is None else f'{row["products"]:.2f}'
        lines.append(f'| `{row["mode"]}`: {row["setting"]}, {NAMES[row["quantity"]]} of {row["contender"]} | '
                     f'{row["versus"]} | {ratio_of(row)} | {row["goal"]:.2f} | {spared} | {over} | {row["why"]} |')
    if len(lines) > 2:
        return '\n'.join(lines)
    return 'Nothing.' if results else 'No goal has been measured.'


def write_page(folder: Path, page: Path, goals: Sequence[Any], rate: str, layouts: Sequence[str] = ()) -> None:
    """Put what the JSON files of a folder hold between the marks of a page; beside it the plot, all rows as a CSV file
    and all there is as a JSON file.
    """
    results = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob('*.json'))}
    results = {mode: results[mode] for mode in MODES if mode in results}
    sections, all_verdicts, all_rows = [], [], []
    for mode, result in results.items():
        rows = with_fastest_layouts(result['rows'], layouts)
        found = verdicts(rows, goals) + growth(rows)
        all_rows += rows
        all_verdicts += found
        result |= dict(rows=rows, goals=found)
        about = ', '.join(f'{name} {value}' if name not in ('device', 'family') else value
                          for name, value in result['machine'].items())
        runs = ' to '.join(map(str, sorted({row['runs'] for row in rows})))
        failed = '\n'.join(f'- failed: {line}' for line in result.get('failures', ()))
        parts = (table(found) if found else '', profile(rows, rate) or figures_table(rows), failed)
        sections.append('\n\n'.join([f'### `{mode}`', f'{about}; medians of {runs} runs.', *filter(None, parts)]))
    missed = f'### What is missed\n\n{missed_table(all_verdicts, all_rows, rate)}'
    replace_between(page, BEGIN, END, '\n\n'.join([missed, *sections]))
    write_csv(page.with_suffix('.csv'), all_rows)
    page.with_suffix('.json').write_text(json.dumps(results, indent=1) + '\n')
    plot(all_verdicts, page.with_suffix('.png'))


def write_csv(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """All figures but those of single runs, which the JSON file has."""
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction='ignore')
        writer.writeheader()
        writer.writerows(rows)


def plot(results: Sequence[dict[str, Any]], path: Path) -> None:
    """One bar for each ratio, green where it is low enough, and a tick at the goal."""
    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(11, 0.28 * len(results) + 1.2))
    positions = range(len(results))
    axes.barh(positions, [row['ratio'] for row in results], color=['#3a8' if row['met'] else '#c54' for row in results])
    axes.plot([row['goal'] for row in results], positions, 'k|', markersize=11, label='goal')
    axes.set_yticks(positions, [f'{row["setting"]}{variant(row)}: {NAMES[row["quantity"]]} / {row["versus"]}'
                                for row in results], fontsize=7)
    axes.axvline(1, color='0.5', linewidth=0.8)
    axes.set_ylim(len(results) - 0.4, -0.6)
    axes.set_xlabel('ratio, ours / theirs')
    axes.legend(loc='lower right', bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=110, bbox_inches='tight')


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('modes', nargs='*', help=f'of {", ".join(MODES)}, or all')
    parser.add_argument('--device', default='cpu', help='cpu, cuda or cuda:1')
    parser.add_argument('--threads', type=int, default=2, help='CPU threads of torch')
    parser.add_argument('--runs', '--repeats', type=int,
                        help='of every contender, after one to warm up; unless given, ' + ', '.join(
                            f'{runs} in {mode}' for mode, runs in RUNS.items()))
    parser.add_argument('--only', default='', help='settings that contain this')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmark'))
    parser.add_argument('--page', type=Path, nargs='?', const=PAGE,
                        help='write docs/benchmarks.md, or another page with the same marks, from all that --out holds')
    args = parser.parse_args()
    modes = [mode for mode in MODES if mode in args.modes or 'all' in args.modes]
    if unknown := sorted(set(args.modes) - {*MODES, 'all'}):
        parser.error(f'unknown modes {unknown}; known are {", ".join(MODES)} and all')
    if args.runs is not None and args.runs < 2:
        parser.error(f'--runs must be at least 2, got {args.runs}')
    if args.threads < 1:
        parser.error(f'--threads must be at least 1, got {args.threads}')
    if args.page:
        check_marks(args.page, BEGIN, END)
    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError) as error:
        parser.error(f'--device {args.device} cannot be used: {str(error).splitlines()[0]}')
    sys.path.insert(0, str(ROOT / 'tools'))
    # The server of the processes on a CPU finds modules by this alone.
    os.environ['PYTHONPATH'] = os.pathsep.join([str(ROOT / 'tools'), str(ROOT), os.environ.get('PYTHONPATH', '')])
    multiprocessing.set_forkserver_preload(['benchmark_cases'])
    from benchmark_cases import GOALS, LAYOUTS, RATE, cases

    for mode in modes:
        if not any(args.only in case.setting for _, case in cases(mode)):
            parser.error(f'no setting of {mode} contains --only {args.only!r}; there are '
                         f'{", ".join(sorted({case.setting for _, case in cases(mode)}))}')
    args.out.mkdir(parents=True, exist_ok=True)
    about = machine(args.device, args.threads)
    print(about)
    all_failures = []
    for mode in modes:
        with tempfile.TemporaryDirectory() as hints:
            os.environ['BENCHMARK_HINTS'] = hints
            rows, failures = run(mode, args.only, args.device, args.threads, args.runs or RUNS[mode])
        all_failures += failures
        if not rows:
            continue  # what an earlier run has found stays
        write_csv(args.out / f'{mode}.csv', rows)
        shown = with_fastest_layouts(rows, LAYOUTS)
        results = verdicts(shown, GOALS) + growth(rows)
        (args.out / f'{mode}.json').write_text(json.dumps(
            dict(machine=about, rows=rows, goals=results, failures=failures), indent=1))
        print(profile(rows, RATE) or figures_table(shown))
        if results:
            print(table(results))
            plot(results, args.out / f'{mode}.png')
    if args.page:
        write_page(args.out, args.page, GOALS, RATE, LAYOUTS)
    if all_failures:
        sys.exit('\n'.join(['error: these failed:', *all_failures]))


def run(mode: str, only: str, device: str, threads: int, runs: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure one mode, group by group; rows and failures."""
    from benchmark_cases import cases

    chosen = [(i, case) for i, case in cases(mode) if only in case.setting]
    with_memory = mode in MEMORY_ON_CPU or device.startswith('cuda')
    all_rows: list[dict[str, Any]] = []
    all_failures: list[str] = []
    for group in dict.fromkeys(case.group or case.setting for _, case in chosen):
        contenders = [Contender(i, case, device, threads) for i, case in chosen
                      if (case.group or case.setting) == group]
        # Whole models have run already when they are built.
        rows, failures = measure(contenders, runs, with_memory, warm_up=0 if mode == 'model' else 1)
        all_rows += rows
        all_failures += failures
        for row in rows:
            print('  '.join(f'{name}={row[name]:.4g}' if isinstance(row[name], float) else f'{row[name]}'
                            for name in COLUMNS if row[name] is not None), flush=True)
    return all_rows, all_failures


if __name__ == '__main__':
    main()
