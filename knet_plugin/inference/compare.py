"""Compare the reports of two tests: scores, classes, and the images that changed most."""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from knet_plugin.inference.run_folder import RunError

__all__ = ['compare', 'main']


def compare(one: Path, other: Path, images: int = 5) -> list[Table]:
    """Return tables of scores, of PQ by class and size, and of the images whose PQ fell and rose most.

    Args:
        one: Work folder after ``knet test``, or the folder of a report.
        other: The same, which is compared with it.
        images: How many images of each kind.

    Raises:
        RunError: A folder has no report.
    """
    reports = [_report(folder) for folder in (one, other)]
    scores = [{name: float(value) for name, value in json.loads((report / 'metrics.json').read_text()).items()
               if not name.endswith('time')} for report in reports]
    tables = [_table('score', scores[0], scores[1], sorted(scores[0].keys() & scores[1].keys()))]
    for name in ('class', 'size', 'image'):
        first, second = (_qualities(report, name) for report in reports)
        common = [each for each in first if each in second]
        if name == 'image':
            changed = sorted(common, key=lambda each: second[each] - first[each])
            common = [each for each in changed if second[each] != first[each]]
            common = common if len(common) <= 2 * images else common[:images] + common[-images:]
        if common:
            tables.append(_table(name, first, second, common))
    return tables


def _report(folder: Path) -> Path:
    for candidate in (folder, folder / 'test'):
        if (candidate / 'metrics.json').is_file():
            return candidate
    raise RunError(f'{folder} has no report: run `knet test {folder}` first')


def _qualities(report: Path, name: str) -> dict[str, float]:
    """PQ by class, size or image."""
    path = report / f'{name}{"es" if name == "class" else "s"}.csv'
    if not path.is_file():
        return {}
    with path.open(newline='', encoding='utf-8') as file:
        return {row[name]: float(row['PQ']) for row in csv.DictReader(file)}


def _table(title: str, first: dict[str, float], second: dict[str, float], names: list[str]) -> Table:
    table = Table(box=None)
    for column in (title if title == 'score' else f'{title}, PQ', 'first', 'second', 'change'):
        table.add_column(column, justify='right' if table.columns else 'left')
    for name in names:
        table.add_row(name, f'{first[name]:.3g}', f'{second[name]:.3g}', f'{second[name] - first[name]:+.3g}')
    return table


def main() -> int | str:
    """Run the command; return the exit status, or the error."""
    parser = argparse.ArgumentParser(prog='knet compare', description=__doc__)
    parser.add_argument('first', type=Path, help='work folder of a training after `knet test`, or folder of a report')
    parser.add_argument('second', type=Path, help='the same, which is compared with the first')
    parser.add_argument('--images', type=int, default=5, metavar='N',
                        help='name the N images that lost and that gained most (default: 5)')
    args = parser.parse_args()
    if args.images < 1:
        parser.error(f'argument --images: must be positive, got {args.images}')
    try:
        tables = compare(args.first, args.second, args.images)
    except RunError as error:
        return f'error: {error}'
    for table in tables:
        Console().print(table, '')
    return 0
