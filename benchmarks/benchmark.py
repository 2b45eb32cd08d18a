"""Measure time and memory of the package against the hosts' own parts, other models and another checkout.

    python benchmarks/benchmark.py all --quick
    python benchmarks/benchmark.py all --before ../other-clone --page   # writes docs/benchmarks.md
    python benchmarks/benchmark.py stages detectors --turns 5

Every contender runs in a process of its own. The contenders of a setting take turns, one step each, so that whatever
else the machine does slows all of them down. A ratio of times is the median of the ratios in each turn.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import mmcv
import mmdet
import mmengine
import mmseg
import torch
from benchmark_report import COLUMNS, Figures, csv_row, section
from marked_page import replace_between

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests/reference')]  # where `cases` finds the package and the plain equations

from cases import BEFORE, MODES, OURS, Mode  # noqa: E402

PAGE, WORKER = ROOT / 'docs/benchmarks.md', ROOT / 'benchmarks/benchmark_worker.py'
BEGIN, END = '<!-- figures: written by benchmarks/benchmark.py -->', '<!-- end of the figures -->'


class Contender:
    """A process that measures one contender, with the package of a clone."""

    def __init__(self, name: str, mode: str, checkout: Path, args: argparse.Namespace) -> None:
        self.name = name
        paths = [str(checkout), str(checkout / 'tests/reference'), os.environ.get('PYTHONPATH', '')]
        command = [sys.executable, str(WORKER), args.device, str(args.threads), str(checkout), mode,
                   OURS if name == BEFORE else name]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(paths), PYTHONWARNINGS='ignore'))

    def ask(self, task: str) -> dict[str, float]:
        """Give the process a task: a setting to build, or nothing, to run a step."""
        assert self.process.stdin and self.process.stdout
        print(task, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f'error: the process of {self.name} ended, see its message above')
        return json.loads(answer)

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def run_mode(name: str, mode: Mode, turns: int, args: argparse.Namespace) -> list[list[Figures]]:
    """Measure a mode; returns the figures of the contenders of each setting, ours first."""
    before = [BEFORE] if args.before and mode.before else []
    settings = {setting: [OURS, *before, *(each for each in builds if each != OURS)]
                for setting, builds in mode.settings.items() if args.only in setting}
    names = dict.fromkeys(each for contenders in settings.values() for each in contenders)
    contenders = {each: Contender(each, name, args.before if each == BEFORE else ROOT, args) for each in names}
    try:
        return [run_setting(setting, [contenders[each] for each in chosen], turns)
                for setting, chosen in settings.items()]
    finally:
        for contender in contenders.values():
            contender.end()


def run_setting(setting: str, contenders: Sequence[Contender], turns: int) -> list[Figures]:
    """Let the contenders build their case one after the other, which may need much memory, and then take turns."""
    found = [Figures(setting, contender.name, memory=contender.ask(setting)) for contender in contenders]
    for _ in range(turns):
        for contender, figures in zip(contenders, found, strict=True):
            figures.seconds.append(contender.ask('')['seconds'])
    return found


def machine(args: argparse.Namespace) -> str:
    """What the figures are measured on."""
    lines = Path('/proc/cpuinfo').read_text().splitlines() if Path('/proc/cpuinfo').exists() else []
    cpu = next((line.split(':')[1].strip() for line in lines if line.startswith('model name')), 'an unknown CPU')
    device = f'{cpu}, {args.threads} threads' if args.device == 'cpu' else torch.cuda.get_device_name(args.device)
    hosts = ', '.join(f'{module.__name__} {module.__version__}' for module in (torch, mmengine, mmcv, mmdet, mmseg))
    if not args.before:
        return f'{device}, {hosts}'
    commit = subprocess.check_output(['git', '-C', str(args.before), 'rev-parse', '--short', 'HEAD'], text=True)
    return f'{device}, {hosts}, before: {commit.strip()}'


def write_mode(out: Path, name: str, text: str, groups: Sequence[Sequence[Figures]]) -> None:
    """Keep a mode's table and figures for the page."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f'{name}.md').write_text(f'{text}\n')
    with (out / f'{name}.csv').open('w', newline='') as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(csv_row(name, figures) for group in groups for figures in group)


def write_page(out: Path) -> None:
    """Put the tables of all modes that were measured on the page, and their figures in one CSV file beside it."""
    measured = [name for name in MODES if (out / f'{name}.md').exists()]
    replace_between(PAGE, BEGIN, END, '\n'.join((out / f'{name}.md').read_text() for name in measured))
    lines = [line for name in measured for line in (out / f'{name}.csv').read_text().splitlines()[1:]]
    PAGE.with_suffix('.csv').write_text('\n'.join([','.join(COLUMNS), *lines]) + '\n')


def read_arguments() -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description='Measure time and memory of the package against others')
    parser.add_argument('modes', nargs='*', metavar='MODE', help=f'{", ".join(MODES)} or all')
    parser.add_argument('--before', type=Path, metavar='DIR', help='also measure the package of another clone')
    parser.add_argument('--quick', action='store_true', help='a third of the turns')
    parser.add_argument('--turns', type=int, help='turns in every mode, instead of its own number')
    parser.add_argument('--only', default='', metavar='TEXT', help='only settings that contain this')
    parser.add_argument('--device', default='cpu', help='cpu, cuda or cuda:1')
    parser.add_argument('--threads', type=int, default=2, help='CPU threads of each process')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmark'), help='folder for the results')
    parser.add_argument('--page', action='store_true',
                        help='write docs/benchmarks.md and docs/benchmarks.csv from all modes that --out holds')
    args = parser.parse_args()
    if unknown := {*args.modes} - {*MODES, 'all'}:
        parser.error(f'unknown modes {sorted(unknown)}; known are {", ".join(MODES)} and all')
    if args.before and not (args.before / 'knet_plugin').is_dir():
        parser.error(f'--before {args.before} has no folder knet_plugin')
    return args


def main() -> None:
    """Measure, print and write."""
    args = read_arguments()
    about = machine(args)
    for name, mode in MODES.items():
        if not {name, 'all'} & {*args.modes} or not any(args.only in setting for setting in mode.settings):
            continue
        turns = args.turns or (mode.turns // 3 if args.quick else mode.turns)
        begin = time.monotonic()
        groups = run_mode(name, mode, turns, args)
        minutes = (time.monotonic() - begin) / 60
        text = section(name, f'{about}; {turns} turns, {minutes:.1f} minutes.', groups, mode.goals)
        print(f'{text}\n', flush=True)
        write_mode(args.out, name, text, groups)
    if args.page:
        write_page(args.out)


if __name__ == '__main__':
    main()
