"""Write the tables and plots of docs/evidence.md from the runs in docs/learning.csv, and train what they lack.

    python benchmarks/evidence.py                              # tables and plots of the runs that there are
    python benchmarks/evidence.py 4c --data data/nuclei --iterations 200    # train first, then the same
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean

import matplotlib.pyplot as plt
from learning import KEY, read_rows
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
        axis: What the labels are; if they are numbers, the table is plotted.
    """

    case: str
    model: str
    axis: str
    changes: Mapping[str, Sequence[str]]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The columns."""
        return ('mIoU',) if self.case == 'heads' else ('PQ', 'AP', 'AP50', 'mIoU')


KERNELS = ('model.panoptic_head.kernel_head.num_kernels', 'model.test_cfg.max_per_img')
ABLATIONS = {
    '4a': Ablation('own', 'K-Net', 'parts', {
        'neither': (f'{HEAD}.kernel_update_head.updater=None', f'{HEAD}.kernel_update_head.interaction=None'),
        'adaptive update': (f'{HEAD}.kernel_update_head.interaction=None',),
        'interaction': (f'{HEAD}.kernel_update_head.updater=None',),
        'both': ()}),
    '4b': Ablation('own', 'K-Net', 'positions', {
        'none': (f'{FPN}.positional_encoding=None',),
        'coordinates': (f'{FPN}.positional_encoding=None', f'{FPN}.coordinates=True'),
        'encoding': (),
        'both': (f'{FPN}.coordinates=True',)}),
    '4c': Ablation('own', 'K-Net', 'stages', {
        str(n): (f'{HEAD}.num_stages={n}',) if n != 3 else () for n in range(1, 6)}),
    '4d': Ablation('own', 'K-Net', 'kernels', {
        str(n): tuple(f'{name}={n}' for name in KERNELS) for n in (25, 50, 100, 150)}),
    '5': Ablation('heads', 'FCN' + ON_TOP, 'stages', {
        str(n): (f'model.decode_head.num_stages={n}',) if n != 3 else () for n in (1, 2, 3, 5, 7)}),
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
    """K-Net, Mask2Former and Mask R-CNN, where at least two of them have the same settings."""
    shown = ('PQ', 'PQ things', 'AP', 'AP50', 'mIoU')
    groups = groups_of(rows, heads=False)
    models: dict[tuple[str, ...], set[str]] = {}
    for *setting, model, _ in groups:
        models.setdefault(tuple(setting), set()).add(model)
    return markdown(('data', 'model', 'runs', 'iterations', 'CPU seconds', *shown), (
        (setting[0], f'{model} {options}'.strip(), str(len(runs)),
         *(f'{mean(float(run[column]) for run in runs):,.0f}' for column in ('iterations', 'cpu_seconds')),
         *(spread(runs, metric) for metric in shown))
        for (*setting, model, options), runs in groups.items() if len(models[tuple(setting)]) > 1))


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
            spent = (f'{mean(float(row[column]) for row in group):.0f}'
                     for column in ('iterations', 'cpu_seconds') for group in pair)
            lines.append((data, f'{model} {options}'.strip(), str(len(seeds)), *spent,
                          *(spread(group, 'mIoU') for group in pair), f'{gains[-1]:+.1f}'))
    if not lines:
        return NOTHING
    lines.append(('mean', *[''] * 8, f'{mean(gains):+.1f}'))
    pairs = (f'{name} {kind}' for name in ('iterations', 'CPU seconds', 'mIoU') for kind in ('without', 'with K-Net'))
    return markdown(('data', 'model', 'seeds', *pairs, 'gain'), lines)


def ablation_runs(ablation: Ablation, rows: Sequence[Row]) -> dict[tuple[str, ...], dict[str, list[Row]]]:
    """The runs of each row of a table, of the folds and seeds that all its rows have; a table for each setting."""
    found: dict[tuple[str, ...], dict[str, dict[tuple[str, str], Row]]] = {}
    for row in rows:
        options = row['options'].split()
        changes = {part for part in options if '=' in part}
        length = f'{row["iterations"]} iterations'
        if row['length'] != row['iterations']:
            length += f' ({row["length"]} of the first model)'
        setting = data_name(row), length, ' '.join(part for part in options if '=' not in part)
        for label, wanted in ablation.changes.items():
            if row['model'] == ablation.model and changes == set(wanted):
                found.setdefault(setting, {}).setdefault(label, {})[row['data'], row['seed']] = row
    tables = {}
    for setting, runs in sorted(found.items()):
        common = set.intersection(*(set(runs.get(label, ())) for label in ablation.changes))
        if common:
            tables[setting] = {label: [runs[label][place] for place in sorted(common)] for label in ablation.changes}
    return tables


def ablation_table(ablation: Ablation, rows: Sequence[Row]) -> str:
    """A table of the paper, once for each setting."""
    tables = []
    for setting, table in ablation_runs(ablation, rows).items():
        metrics = [metric for metric in ablation.metrics if any(run[metric] for each in table.values() for run in each)]
        lines = [(name, str(len(each)), *(spread(each, metric) for metric in metrics)) for name, each in table.items()]
        tables.append(f'{", ".join(filter(None, setting))}:\n\n{markdown((ablation.axis, "runs", *metrics), lines)}')
    return '\n\n'.join(tables) or NOTHING


def gains(rows: Sequence[Row]) -> str:
    """Each other change of a config, beside the runs without it."""
    of_tables = {frozenset(changes) for ablation in ABLATIONS.values() for changes in ablation.changes.values()}
    pairs: dict[tuple[str, ...], list[tuple[Row, Row]]] = {}
    for row in rows:
        changes = [part for part in row['options'].split() if '=' in part]
        setting = ' '.join(part for part in row['options'].split() if '=' not in part)
        plain = [other for other in rows if all(other[column] == row[column] for column in KEY if column != 'options')
                 and other['options'] == setting]
        if changes and plain and frozenset(changes) not in of_tables:
            data = ', '.join(filter(None, (data_name(row), f'{row["length"]} iterations', setting)))
            pairs.setdefault((data, row['model'], ' '.join(changes)), []).append((plain[0], row))
    shown = ('PQ', 'PQ things', 'AP', 'mIoU', 'cpu_seconds')
    lines = []
    for labels, runs in sorted(pairs.items()):
        cells = [[spread(each, metric) for each in zip(*runs, strict=True)] for metric in shown]
        lines.append((*labels, str(len(runs)), *('-' if '-' in cell else ' -> '.join(cell) for cell in cells)))
    return markdown(('data', 'model', 'change', 'runs', *shown[:-1], 'CPU seconds'), lines) if lines else NOTHING


def plot(rows: Sequence[Row]) -> None:
    """Draw the tables that count something."""
    tables = {name: found for name, each in ABLATIONS.items()
              if all(map(str.isdigit, each.changes)) and (found := ablation_runs(each, rows))}
    if not tables:
        return
    figure, places = plt.subplots(1, len(tables), figsize=(4 * len(tables), 3.6), layout='constrained', squeeze=False)
    for place, (name, table) in zip(places[0], tables.items(), strict=True):
        for ((data, *_), runs), metric in product(table.items(), ABLATIONS[name].metrics):
            if metric != 'AP50' and all(run[metric] for each in runs.values() for run in each):
                means = [mean(float(run[metric]) for run in each) for each in runs.values()]
                place.plot([int(label) for label in runs], means, 'o-', label=f'{data}, {metric}')
        place.set(title=f'Table {name}', xlabel=ABLATIONS[name].axis, ylim=(0, 1.1 * place.dataLim.ymax))
        place.legend(loc='upper center', bbox_to_anchor=(0.5, -0.2), ncols=2)
    figure.savefig(PLOTS, dpi=80)


def train(ablation: Ablation, args: argparse.Namespace, further: Sequence[str]) -> None:
    """Train what the table lacks."""
    for data, changes in product(args.data, ablation.changes.values()):
        command = [sys.executable, ROOT / 'benchmarks/learning.py', ablation.case, '--data', data, '--only',
                   ablation.model, *further]
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
    texts = dict(peers=peers(rows), heads=heads(rows), options=gains(rows))
    texts |= {f'table {name}': ablation_table(ablation, rows) for name, ablation in ABLATIONS.items()}
    for name, text in texts.items():
        replace_between(PAGE, f'<!-- {name}: written by benchmarks/evidence.py -->', f'<!-- end of {name} -->', text)
    plot(rows)


if __name__ == '__main__':
    main()
