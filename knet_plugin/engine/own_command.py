"""``knet train --data``: from command line options to the config of a run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

from knet_plugin.checkpoint.pretrained import PACKAGED, Weights, find_weights
from knet_plugin.cli import ResourceError, resolve_config, resource_root
from knet_plugin.datasets.description import TASKS, DataDescription
from knet_plugin.engine.own_defaults import (
    default_iterations,
    default_kernels,
    default_loading,
    default_short_side,
    image_files,
)
from knet_plugin.engine.own_files import find_run, write_run
from knet_plugin.engine.own_run import MODELS, OwnRun, data_line

__all__ = ['Start', 'add_own_data_arguments', 'check_choice', 'start_own_run']

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
        'training on own data', 'instead of CONFIG: write a config for a folder of `knet data prepare` to work_dirs/, '
        'and train it. A second run gets its own name (NAME-2); --resume continues the latest one.')
    group.add_argument('--data', metavar='FOLDER', help='prepared folder, or its data.yml')
    group.add_argument('--task', choices=TASKS, help='default: the task in data.yml')
    group.add_argument('--model', help=f'{", ".join(MODELS)}, or a config with a K-Net (default: small)')
    group.add_argument('--weights', metavar='FILE|NAME', help=f'start from a file, {", ".join(PACKAGED)}, the weights '
                       'of a published config, or none (default: depends on the model)')
    group.add_argument('--short-side', type=int, metavar='PIXELS', help='size of the images (default: at most 256)')
    group.add_argument('--batch-size', type=int, metavar='N', help='images per iteration')
    length = group.add_mutually_exclusive_group()
    length.add_argument('--iters', type=int, metavar='N', help='iterations (default: about 50 per image)')
    length.add_argument('--minutes', type=float, metavar='M', help='train and validate for M minutes')
    group.add_argument('--force', action='store_true', help='replace the run of the same name, with its folder')
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
    run, weights = _new_run(args, description, task)
    config = write_run(run.text(), FOLDER, run.name, args.force)
    remarks = [f'{config}: {run.summary()}']
    if config.stem != run.name:
        remarks.append(f'{FOLDER / run.name} exists already and stays; --resume continues the latest run, --force '
                       f'replaces {run.name}')
    return Start(config, weights, remarks)


def _resumed(args: argparse.Namespace, description: DataDescription, task: str) -> Start:
    """The latest run of the data and task, whose settings must be those of the options that are given."""
    name = f'{description.root.name}-{task}'
    config = find_run(FOLDER, name, data_line(description))
    if config is None:
        raise ValueError(f'--resume: there is no run {FOLDER / name} of {description.root}; leave out --resume to '
                         'start one')
    given = [_option(option) for option in _SETTINGS if getattr(args, option) is not None]
    if given and _new_run(args, description, task)[0].text() != config.read_text():
        raise ValueError(f'--resume continues with the settings in {config}, which has others: leave out '
                         f'{", ".join(given)}, or edit that file')
    return Start(config, None, [f'resuming {config}'])


def _new_run(args: argparse.Namespace, description: DataDescription, task: str) -> tuple[OwnRun, Weights | None]:
    """Choose what the options leave open."""
    model = args.model or 'small'
    default_weights = 'config'
    if model in MODELS:
        model_config, default_weights = MODELS[model][task]
        base = resolve_config(f'own_data/{model_config}')
    else:
        try:
            base = resolve_config(model)
        except ResourceError as error:
            raise ValueError(f'--model {model}: neither {" nor ".join(MODELS)}, and {error}') from None
    name = args.weights or default_weights
    weights: Weights | str | None = name if name == 'config' else find_weights(name, resource_root())
    images = len(image_files(description))
    batch_size, num_workers = default_loading(images, model)
    batch_size = args.batch_size or batch_size
    iterations = args.iters or default_iterations(images, batch_size)
    if args.minutes:
        iterations = max(1, round(60 * args.minutes / _GUESSED_SECONDS))
    short_side = args.short_side or default_short_side(description, task)
    kernels = weights.kernels if isinstance(weights, Weights) and task != 'semantic' else None
    if kernels is None and model == 'small' and task != 'semantic':
        kernels = default_kernels(description)
    run = OwnRun(description, task, base.resolve(), weights, short_side, iterations, args.minutes, batch_size,
                 num_workers, kernels)
    return run, weights if isinstance(weights, Weights) else None


def _option(name: str) -> str:
    return f'--{name.replace("_", "-")}'
