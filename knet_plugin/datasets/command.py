"""Prepare and check your own data.

    knet data prepare images/ masks/ -o data/ped --classes person --stuff background --val 0.2
    knet data check data/ped
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from dataclasses import replace
from pathlib import Path

from knet_plugin.cli import ResourceError, resolve_config
from knet_plugin.datasets.prepare import FORMATS, Options, Prepared, find_sources, prepare
from knet_plugin.datasets.prepare.sample import Source

__all__ = ['main', 'summary']

MOST_LINES = 20  # classes in the summary


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog='knet data', description='Prepare and check your own data.')
    commands = parser.add_subparsers(dest='command', required=True)
    _add_prepare(commands.add_parser('prepare', formatter_class=argparse.RawDescriptionHelpFormatter,
                                     help='read annotated images and write a folder for knet train',
                                     description='Read annotated images and write a folder for knet train.',
                                     epilog='\n'.join(['formats:', *(f'  {name:16}{text}'
                                                                    for name, (text, _) in FORMATS.items())])))
    check = commands.add_parser('check', help='say what a training would meet')
    check.add_argument('data', help='a prepared folder, or a config')
    return parser.parse_args()


def _add_prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('images', type=Path, help='folder of the images')
    parser.add_argument('annotations', type=Path, nargs='?',
                        help='folder or file of the annotations (default: beside the images, or in labels/, masks/ or '
                             'annotations/)')
    parser.add_argument('-o', '--out', required=True, help='folder to write')
    parser.add_argument('--classes', nargs='+', default=[], metavar='NAME',
                        help='classes, in the order of their values where the data has no names; NAME=VALUE or '
                             'NAME=R,G,B for label maps; or a text file with one in each line')
    parser.add_argument('--stuff', nargs='+', default=[], metavar='NAME',
                        help='classes without objects; a name that the data does not have is given to all other pixels')
    parser.add_argument('--ignore', nargs='+', type=int, default=[255], metavar='VALUE',
                        help='values of label maps that are no class (default: 255)')
    parser.add_argument('--format', choices=('auto', *FORMATS), default='auto', help='see below (default: auto)')
    parser.add_argument('--val', type=float, metavar='SHARE',
                        help='share of the images for validation (default: the folders or files train and val, if they '
                             'exist; otherwise 0.2)')
    parser.add_argument('--val-images', type=Path, help='folder of images for validation')
    parser.add_argument('--val-annotations', type=Path, help='annotations of the images for validation')
    parser.add_argument('--seed', type=int, default=0, help='of the random split (default: 0)')
    parser.add_argument('--task', choices=('panoptic', 'instance', 'semantic'),
                        help='default task of the data (default: panoptic if it has things and stuff)')
    parser.add_argument('--force', action='store_true', help='replace a folder that this command has made')


def run_prepare(args: argparse.Namespace) -> None:
    """Prepare the data and print a summary."""
    if args.val is not None and not 0 < args.val < 1:
        raise ValueError(f'--val must be between 0 and 1, got {args.val}')
    if args.seed < 0:
        raise ValueError(f'--seed must be at least 0, got {args.seed}')
    classes = args.classes
    if len(classes) == 1 and Path(classes[0]).is_file():
        classes = [line.strip() for line in Path(classes[0]).read_text(encoding='utf-8-sig').splitlines()
                   if line.strip()]
    options = Options(tuple(classes), tuple(args.stuff), tuple(args.ignore), args.format)
    prepared = prepare(_sources(args), args.out, options, args.val, args.seed, args.task, args.force)
    print(summary(prepared, args.out))


def _sources(args: argparse.Namespace) -> list[Source]:
    """Return the sources, with their splits unless ``--val`` asks for a new one."""
    sources = find_sources(args.images, args.annotations)
    if args.val_images or args.val_annotations:
        if args.val is not None:
            raise ValueError('--val: leave it out, because --val-images or --val-annotations says the split')
        val = find_sources(args.val_images or args.images, args.val_annotations or args.annotations)
        if len(sources) > 1 or len(val) > 1:
            raise ValueError(f'--val-images: {args.images} is divided into train and val; give one of these folders')
        return [replace(sources[0], split='train'), replace(val[0], split='val')]
    return sources


def summary(prepared: Prepared, out: str) -> str:
    """Return what was read and written, and what to do next."""
    lines = [f'read as {prepared.format}: {FORMATS[prepared.format][0]}']
    lines += [f'warning: {note}' for note in prepared.notes]
    lines.append(f'{out}: ' + ', '.join(f'{count} images in {split}' for split, count in prepared.images.items()))
    classes = prepared.description.classes
    width = max(map(len, classes))
    for name in classes[:MOST_LINES]:
        what = 'objects' if name in prepared.description.things else 'images'
        counts = ', '.join(f'{of_class[name]} {what} in {split}' for split, of_class in prepared.counts.items())
        lines.append(f'  {name:{width}}  {counts}')
    if len(classes) > MOST_LINES:
        lines.append(f'  and {len(classes) - MOST_LINES} more classes')
    folder = shlex.quote(out)
    return '\n'.join([*lines, f'look at {out}/samples, then:', f'  knet data check {folder}',
                      f'  knet train --data {folder} --task {prepared.description.task}'])


def run_check(path: str) -> int:
    """Print the report on a prepared folder or a config, and return the exit status."""
    from mmengine.config import Config

    from knet_plugin.datasets.check import check_config, check_data
    from knet_plugin.datasets.description import DATA_FILE

    is_data = Path(path).is_dir() or Path(path).name == DATA_FILE
    try:
        report = check_data(path) if is_data else check_config(Config.fromfile(resolve_config(path)))
    except ResourceError as error:
        raise ValueError(f'there is no folder or file {path}, and {error}') from None
    print(report.text())
    return 1 if report.errors else 0


def main() -> int:
    """Run the command, and return the exit status."""
    args = parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the draft of the folder is removed
    try:
        if args.command == 'check':
            return run_check(args.data)
        run_prepare(args)
    except (ValueError, OSError, ResourceError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('interrupted; nothing is written', file=sys.stderr)
        return 130
    return 0
