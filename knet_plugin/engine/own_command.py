"""``knet train --data``: from command line options to the config of a run."""

from __future__ import annotations

import argparse
import itertools
import shutil
from pathlib import Path
from typing import NamedTuple

from knet_plugin.checkpoint.pretrained import BACKBONES, PACKAGED, Weights, find_weights
from knet_plugin.cli import ResourceError, resolve_config, resource_root
from knet_plugin.datasets.description import TASKS, DataDescription
from knet_plugin.engine.own_defaults import (
    default_iterations,
    default_kernels,
    default_loading,
    default_short_side,
    image_files,
    small_objects,
)
from knet_plugin.engine.own_run import CENTRES, MODELS, OwnRun, data_line

__all__ = ['Start', 'add_own_data_arguments', 'check_choice', 'find_run', 'start_own_run', 'write_run']

FOLDER = Path('work_dirs')
_SETTINGS = ('model', 'weights', 'short_side', 'iters', 'minutes', 'batch_size')
_GUESSED_SECONDS = 0.8  # of an iteration, until a run with --minutes has measured it


class Start(NamedTuple):
    """Where a run starts."""

    config: Path
    weights: Weights | None  # what the config loads, as far as the command line chose it
    remarks: list[str]  # lines for the user


def add_own_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a training on a prepared folder."""
    group = parser.add_argument_group(
        'training on your own data', 'knet train --data FOLDER writes the config work_dirs/NAME.py and trains it. NAME '
        'is FOLDER-TASK; a second run is called NAME-2.')
    group.add_argument('--data', metavar='FOLDER', help='folder written by `knet data prepare`')
    group.add_argument('--task', choices=TASKS, help='what to learn (default: the task in FOLDER/data.yml)')
    group.add_argument('--model', help='small (trains on a CPU), r50 or swin (for GPUs), or a config with a K-Net '
                       '(default: small)')
    names = ', '.join([*PACKAGED, *BACKBONES])
    group.add_argument('--weights', metavar='FILE|NAME', help=f'weights to start from: a file, {names}, the name of a '
                       'published config, or none (default: those of the model)')
    group.add_argument('--short-side', type=int, metavar='PIXELS',
                       help='resize images to this short side (default: at most 256)')
    group.add_argument('--batch-size', type=int, metavar='N', help='images per iteration')
    length = group.add_mutually_exclusive_group()
    length.add_argument('--iters', type=int, metavar='N', help='iterations (default: about 50 views of each image)')
    length.add_argument('--minutes', type=float, metavar='M', help='train and validate for M minutes instead')
    group.add_argument('--force', action='store_true', help='replace the run NAME and its folder')
    group.add_argument('--config-only', action='store_true', help='write the config, but do not train')


def check_choice(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a usage error unless there is either a config or ``--data``, with the options of its own."""
    if (args.config is None) == (args.data is None):
        parser.error('give either CONFIG or --data FOLDER')
    options = ('task', *_SETTINGS, 'force', 'config_only')
    if args.data is None and (given := [_option(name) for name in options if getattr(args, name)]):
        parser.error(f'only with --data: {", ".join(given)}')


def start_own_run(args: argparse.Namespace) -> Start:
    """Write the config of the run that the options describe, or find the run that ``args.resume`` continues.

    Raises:
        ValueError: An option is wrong, the data cannot train the task, or there are no such weights.
    """
    for option in _SETTINGS[2:]:
        value = getattr(args, option)
        if value is not None and value <= 0:
            raise ValueError(f'{_option(option)} must be positive, got {value}')
    description = DataDescription.read(args.data)
    task = args.task or description.task
    if task not in description.tasks:
        raise ValueError(f'--task {task}: the data in {description.root} can train {", ".join(description.tasks)}')
    if args.resume:
        return _resumed(args, description, task)
    run = _new_run(args, description, task)
    config = write_run(run.text(), FOLDER, run.name, args.force)
    remarks = [f'{config}: {run.summary()}']
    if config.stem != run.name:
        remarks.append(f'{FOLDER / run.name} exists already and stays; --resume continues the latest run, --force '
                       f'replaces {run.name}')
    return Start(config, run.weights if isinstance(run.weights, Weights) else None, remarks)


def _resumed(args: argparse.Namespace, description: DataDescription, task: str) -> Start:
    """Find the latest run of the data and task; its settings must be those of the options that are given."""
    name = f'{description.root.name}-{task}'
    config = find_run(FOLDER, name, data_line(description))
    if config is None:
        raise ValueError(f'--resume: there is no run {FOLDER / name} of {description.root}; leave out --resume to '
                         'start one')
    given = [_option(option) for option in _SETTINGS if getattr(args, option) is not None]
    if given and _new_run(args, description, task).text() != config.read_text():
        raise ValueError(f'--resume continues with the settings in {config}, which has others: leave out '
                         f'{", ".join(given)}, or edit that file')
    return Start(config, None, [f'resuming {config}'])


def _new_run(args: argparse.Namespace, description: DataDescription, task: str) -> OwnRun:
    """Choose what the options leave open."""
    model = args.model or 'small'
    model_config, default_weights = MODELS[model][task] if model in MODELS else (model, 'config')
    try:
        base = resolve_config(f'recipe/{model_config}' if model in MODELS else model)
    except ResourceError as error:
        raise ValueError(f'--model {model}: neither {" nor ".join(MODELS)}, and {error}') from None
    name = args.weights or default_weights
    weights: Weights | str | None = name if name == 'config' else find_weights(name, resource_root())
    start = weights if isinstance(weights, Weights) and weights.whole_model else None
    centres = start.centres if start else small_objects(description)
    if centres and task in CENTRES.get(model, {}):
        base = resolve_config(f'recipe/{CENTRES[model][task]}')
    images = len(image_files(description))
    batch_size, num_workers = default_loading(images, model)
    batch_size = args.batch_size or batch_size
    iterations = args.iters or default_iterations(images, batch_size)
    if args.minutes:
        iterations = max(1, round(60 * args.minutes / _GUESSED_SECONDS))
    short_side = args.short_side or default_short_side(description, task)
    kernels = weights.kernels if isinstance(weights, Weights) and task != 'semantic' else None
    if kernels is None and model in CENTRES and task != 'semantic':
        kernels = default_kernels(description)
    return OwnRun(description, task, base.resolve(), weights, short_side, iterations, args.minutes, batch_size,
                  num_workers, kernels)


def find_run(folder: Path, name: str, line: str) -> Path | None:
    """Find the config of the latest run of this name in ``folder``: ``NAME.py``, ``NAME-2.py`` and so on.

    Only configs that have the ``line`` count: that of their data, because data in other folders may have the same name.
    """
    files = itertools.takewhile(Path.is_file, (folder / f'{candidate}.py' for candidate in _names(name)))
    return next((file for file in reversed(list(files)) if line in file.read_text().splitlines()), None)


def write_run(text: str, folder: Path, name: str, force: bool = False) -> Path:
    """Write the config of a new run as ``NAME.py``, or under the next free name: ``NAME-2.py`` and so on.

    A name is free if neither the file nor the folder ``NAME`` exists, or if the file has the same text and the folder
    no checkpoint yet. ``force`` replaces the file ``NAME.py`` and removes the folder ``NAME``.
    """
    for candidate in _names(name):
        config, run = folder / f'{candidate}.py', folder / candidate
        if force:
            shutil.rmtree(run, ignore_errors=True)
        unused = not config.exists() and not run.exists()
        unstarted = config.is_file() and config.read_text() == text and not any(run.glob('*.pth'))
        if force or unused or unstarted:
            break
    folder.mkdir(parents=True, exist_ok=True)
    config.write_text(text)
    return config


def _names(name: str) -> itertools.chain[str]:
    return itertools.chain([name], (f'{name}-{number}' for number in itertools.count(2)))


def _option(name: str) -> str:
    return f'--{name.replace("_", "-")}'
