"""Write the tables and plots of docs/evidence.md from the runs in docs/learning.csv, and train what they lack.

    python benchmarks/evidence.py                              # tables and plots of the runs that there are
    python benchmarks/evidence.py 4c --data data/coco100-0 data/coco100-1   # train first, then the same
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import matplotlib.pyplot as plt
from learning import read_rows
from learning_models import MODELS, ON_TOP, ROOT
from marked_page import replace_between

PAGE, PLOTS = ROOT / 'docs/evidence.md', ROOT / 'docs/evidence.png'
HEAD, FPN = 'model.panoptic_head', 'model.panoptic_head.kernel_head.localization_fpn'
NOTHING = 'Not measured yet.'
Row = Mapping[str, str]


@dataclass(frozen=True)
class Ablation:
    """A table of the paper, repeated on small data.

    Attributes:
        case: Of learning.py.
        model: The model that is changed.
        changes: Label of each row, and what it changes in the config.
        axis: What the labels count, if the table is a plot.
        train_options: Of ``knet train``, for all rows.
    """

    case: str
    model: str
    changes: Mapping[str, Sequence[str]]
    axis: str = ''
    train_options: str = ''

    @property
    def metrics(self) -> tuple[str, ...]:
        """The columns."""
        return ('mIoU',) if self.case == 'heads' else ('PQ', 'PQ things', 'AP', 'mIoU')


LEARNED = '--model recipe/knet-s3_effnet-lite0_panoptic --weights efficientnet-lite0'  # 50 learned kernels, whatever the size of the objects
COUNTS = ('model.panoptic_head.kernel_head.num_kernels', 'model.test_cfg.max_per_img')
ABLATIONS = {
    '4a': Ablation('own', 'K-Net', {
        'neither': (f'{HEAD}.kernel_update_head.updater=None', f'{HEAD}.kernel_update_head.interaction=None'),
        'adaptive update': (f'{HEAD}.kernel_update_head.interaction=None',),
        'interaction': (f'{HEAD}.kernel_update_head.updater=None',),
        'both': ()}, train_options=LEARNED),
    '4b': Ablation('own', 'K-Net', {
        'none': (f'{FPN}.positional_encoding=None',),
        'coordinates': (f'{FPN}.positional_encoding=None', f'{FPN}.coordinates=True'),
        'encoding': (),
        'both': (f'{FPN}.coordinates=True',)}, train_options=LEARNED),
    '4c': Ablation('own', 'K-Net', {
        str(n): (f'{HEAD}.num_stages={n}',) if n != 3 else () for n in range(1, 6)}, 'stages', LEARNED),
    '4d': Ablation('own', 'K-Net', {
        str(n): tuple(f'{name}={n}' for name in COUNTS) if n != 50 else () for n in (10, 25, 50, 100)}, 'kernels',
        LEARNED),
    '5': Ablation('heads', 'FCN' + ON_TOP, {
        str(n): (f'model.decode_head.num_stages={n}',) if n != 3 else () for n in range(1, 8)}, 'stages'),
}


def spread(rows: Iterable[Row], metric: str) -> str:
    """The mean of a metric, and the lowest and highest value of several runs."""
    values = [float(row[metric]) for row in rows if row[metric]]
    if not values:
        return '-'
    return f'{mean(values):.1f}' + (f' ({min(values):g} to {max(values):g})' if len(values) > 1 else '')


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    return '\n'.join(f'| {" | ".join(row)} |' for row in (columns, ['---'] * len(columns), *rows))


def is_plain(row: Row) -> bool:
    """Whether a run has the config as it is, apart from options of ``knet train``."""
    return '=' not in row['options']


def data_name(row: Row) -> str:
    """The data of a run without the number of the fold: folds count like seeds."""
    return re.sub(r'-\d$', '', row['data'])


def settings_of(row: Row) -> tuple[str, ...]:
    """What runs must have in common to be compared: all but model, fold, seed and the rates."""
    options = re.sub(r' ?(stage|peer)-rate \S+', '', row['options'])
    return f'{data_name(row)}, {row["task"]}', row['length'], options


def groups_of(rows: Iterable[Row], heads: bool) -> dict[tuple[str, ...], list[Row]]:
    """Plain runs of semantic heads, or of other models, that differ in seed and fold only."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if is_plain(row) and (row['model'] in MODELS['heads']) == heads:
            groups.setdefault((*settings_of(row), row['model'], row['options']), []).append(row)
    return dict(sorted(groups.items()))


def peers(rows: Sequence[Row]) -> str:
    """K-Net, Mask2Former and Mask R-CNN."""
    shown = ('PQ', 'PQ things', 'AP', 'AP50', 'mIoU')
    return markdown(('data', 'model', 'runs', 'iterations', 'CPU seconds', *shown), (
        (data, f'{model} {options}'.strip(), str(len(runs)),
         *(f'{mean(float(run[column]) for run in runs):,.0f}' for column in ('iterations', 'cpu_seconds')),
         *(spread(runs, metric) for metric in shown))
        for (data, _, _, model, options), runs in groups_of(rows, heads=False).items()))


def heads(rows: Sequence[Row]) -> str:
    """Semantic models without and with K-Net, for the seeds that both have."""
    lines, gains = [], []
    groups = groups_of(rows, heads=True)
    for (data, length, setting, model, options), knet in groups.items():
        plain = groups.get((data, length, setting, model.removesuffix(ON_TOP), setting), [])
        seeds = {row['seed'] for row in knet} & {row['seed'] for row in plain}
        if model.endswith(ON_TOP) and seeds:
            pair = [[row for row in group if row['seed'] in seeds] for group in (plain, knet)]
            without, gained = (mean(float(row['mIoU']) for row in group) for group in pair)
            gains.append(gained - without)
            iterations = (f'{mean(float(row["iterations"]) for row in group):.0f}' for group in pair)
            lines.append((data, f'{model} {options}'.strip(), str(len(seeds)), *iterations,
                          *(spread(group, 'mIoU') for group in pair), f'{gains[-1]:+.1f}'))
    if not lines:
        return NOTHING
    lines.append(('mean', *[''] * 6, f'{mean(gains):+.1f}'))
    columns = 'data', 'model', 'seeds', 'iterations without', 'with K-Net', 'mIoU without', 'with K-Net', 'gain'
    return markdown(columns, lines)


def runs_of(ablation: Ablation, changes: Sequence[str], rows: Sequence[Row]) -> list[Row]:
    """The runs of a row of a table, of all lengths that all rows of the table have."""
    def key(row: Row) -> tuple[str, ...]:
        options = (part for part in row['options'].split() if '=' not in part)
        return row['data'], row['task'], row['length'], row['seed'], *options

    def of(wanted: Sequence[str]) -> dict[tuple[str, ...], Row]:
        return {key(row): row for row in rows if row['model'] == ablation.model
                and {part for part in row['options'].split() if '=' in part} == set(wanted)}

    common = set.intersection(*(set(of(each)) for each in ablation.changes.values()))
    return [row for place, row in of(changes).items() if place in common]


def ablation_table(ablation: Ablation, rows: Sequence[Row]) -> str:
    """A table of the paper."""
    lines = [(label, str(len(runs)), *(spread(runs, metric) for metric in ablation.metrics))
             for label, changes in ablation.changes.items() if (runs := runs_of(ablation, changes, rows))]
    return markdown((ablation.axis, 'runs', *ablation.metrics), lines) if lines else NOTHING


def plot(rows: Sequence[Row]) -> None:
    """Draw the tables that count something."""
    counted = {name: each for name, each in ABLATIONS.items() if each.axis and ablation_table(each, rows) != NOTHING}
    if not counted:
        return
    figure, places = plt.subplots(1, len(counted), figsize=(4 * len(counted), 3), layout='constrained', squeeze=False)
    for place, (name, ablation) in zip(places[0], counted.items(), strict=True):
        points = {int(label): runs for label, changes in ablation.changes.items()
                  if (runs := runs_of(ablation, changes, rows))}
        for metric in ablation.metrics:
            found = {number: [float(run[metric]) for run in runs if run[metric]] for number, runs in points.items()}
            if all(found.values()):
                place.plot([*found], [mean(values) for values in found.values()], 'o-', label=metric)
        place.set(title=f'Table {name}', xlabel=ablation.axis)
        place.legend()
    figure.savefig(PLOTS, dpi=80)


def train(ablation: Ablation, args: argparse.Namespace, further: Sequence[str]) -> None:
    """Train what the table lacks."""
    for data in args.data:
        for changes in ablation.changes.values():
            command = [sys.executable, ROOT / 'benchmarks/learning.py', ablation.case, '--data', data, '--only',
                       ablation.model, *further]
            if ablation.train_options:
                command += ['--train-options', ablation.train_options]
            subprocess.run([*command, *(['--options', *changes] if changes else [])], check=True)


def main() -> None:
    """Train what the named tables lack, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('tables', nargs='*', choices=[[], *ABLATIONS], help='of the paper, to train')
    parser.add_argument('--data', type=Path, nargs='+', default=[], help='folders to train them on')
    args, further = parser.parse_known_args()  # the rest is for learning.py
    for table in args.tables:
        train(ABLATIONS[table], args, further)
    rows = read_rows()
    texts = dict(peers=peers(rows), heads=heads(rows))
    texts |= {f'table {name}': ablation_table(ablation, rows) for name, ablation in ABLATIONS.items()}
    for name, text in texts.items():
        replace_between(PAGE, f'<!-- {name}: written by benchmarks/evidence.py -->', f'<!-- end of {name} -->', text)
    plot(rows)


if __name__ == '__main__':
    main()
