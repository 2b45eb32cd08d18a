"""Compare trained and exported models on your own images: time, memory and agreement."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from knet_plugin import runtime
from knet_plugin.compat import check_host_packages
from knet_plugin.inference.inputs import InputError, find_sources
from knet_plugin.inference.opening import OPENING_ERRORS, open_predictor
from knet_plugin.inference.run_folder import find_weights, images_of_run
from knet_plugin.visualization import Result

__all__ = ['agreement', 'main']


class Measured(NamedTuple):
    """What a process reports for an image."""

    seconds: float
    peak: int  # bytes, the most that the process had in memory until then
    result: Result


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog='knet benchmark', description=__doc__)
    parser.add_argument('models', nargs='+', metavar='MODEL',
                        help='exported models, work folders of trainings, or paths or names of configs')
    parser.add_argument('--images', nargs='+', metavar='INPUT',
                        help='images, folders or quoted patterns (default: validation images of the first MODEL that '
                             'has a config)')
    parser.add_argument('--limit', type=int, default=20, metavar='N', help='take at most N images (default: 20)')
    parser.add_argument('--threads', type=int, default=0, metavar='N',
                        help='threads of each model (default: all cores)')
    args = parser.parse_args()
    for name in ('limit', 'threads'):
        if getattr(args, name) < (name == 'limit'):
            parser.error(f'argument --{name}: must be positive, got {getattr(args, name)}')
    return args


class Contender:
    """A model in a process of its own, so that its memory can be told."""

    def __init__(self, model: str, threads: int) -> None:
        context = multiprocessing.get_context('spawn')
        self._connection, other = context.Pipe()
        process = context.Process(target=_serve, args=(other, model, threads), daemon=True)
        before = os.environ.pop('KNET_RUNTIME_ONLY', None)
        if Path(model).suffix in runtime.ENGINE_SUFFIXES:
            os.environ['KNET_RUNTIME_ONLY'] = '1'  # or the import of the hosts would count as memory of the engine
        begin = time.perf_counter()
        process.start()
        os.environ.pop('KNET_RUNTIME_ONLY', None)
        if before is not None:
            os.environ['KNET_RUNTIME_ONLY'] = before
        other.close()
        self._receive()
        self.load_seconds = time.perf_counter() - begin  # with Python and all imports

    def run(self, image: Path) -> Measured:
        """Segment an image."""
        self._connection.send(image)
        return self._receive()

    def _receive(self) -> Any:
        try:
            answer = self._connection.recv()
        except EOFError as error:
            raise InputError('the process of a model ended; is there enough memory?') from error
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(connection: Connection, model: str, threads: int) -> None:
    """What the process of a model does."""
    try:
        predictor = open_predictor(model, device='cpu', threads=threads)
        if Path(model).suffix not in runtime.ENGINE_SUFFIXES:
            import torch

            torch.set_num_threads(threads)
        connection.send(None)
        while True:
            image = connection.recv()
            begin = time.perf_counter()
            result, = predictor(image)
            seconds = time.perf_counter() - begin
            connection.send(Measured(seconds, _peak_memory(), result))
    except EOFError:  # the other side has ended
        pass
    except Exception as error:  # each engine has its own errors
        connection.send(InputError(f'{model}: {str(error).strip() or type(error).__name__}'))


def _peak_memory() -> int:
    """Bytes. ``getrusage`` would count what the parent had in memory when it started this process."""
    status = Path('/proc/self/status')
    if status.is_file():
        line, = (line for line in status.read_text().splitlines() if line.startswith('VmHWM:'))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


def agreement(one: Result, other: Result) -> float:
    """Share of the pixels that have the same class in two results of an image, over the parts that both have.

    Instances count as the class of the best object at each pixel, with a score of at least 0.3.
    """
    pairs = [(_classes(one, part), _classes(other, part)) for part in one.parts if part in other.parts]
    if not pairs:
        raise InputError(f'the models have nothing in common: one finds {one.parts}, the other {other.parts}')
    return float(np.mean([(first == second).mean() for first, second in pairs]))


def _classes(result: Result, part: str) -> np.ndarray:
    """Class of each pixel, (H, W), or a number that is no class."""
    if part == 'semantic':
        return result.semantic.astype(np.int32)  # type: ignore[union-attr]
    if part == 'panoptic':
        labels = {segment.id: segment.label for segment in result.segments}
        table = np.array([labels.get(id, -1) for id in range(max(labels, default=0) + 1)], np.int32)
        return table[result.panoptic]
    import pycocotools.mask as mask_utils

    classes = np.full(result.size, -1, np.int32)
    for each in reversed([each for each in result.instances or () if (each.score or 0) >= 0.3]):
        classes[mask_utils.decode(each.mask).astype(bool)] = each.label
    return classes


def compare(models: Sequence[str], images: Sequence[Path], threads: int) -> Table:
    """Let the models take turns, one image each, after one image to warm up; return the table."""
    contenders = [Contender(model, threads) for model in models]
    for contender in contenders:
        contender.run(images[0])
    turns = [[contender.run(image) for contender in contenders] for image in images]
    table = Table(box=None)
    for column in ('model', 'start s', 'ms per image', 'ratio', 'peak MiB', 'same pixels'):
        table.add_column(column, justify='left' if column == 'model' else 'right')
    for model, contender, measured in zip(models, contenders, zip(*turns, strict=True), strict=True):
        ratio = statistics.median(each.seconds / turn[0].seconds for each, turn in zip(measured, turns, strict=True))
        same = statistics.mean(agreement(each.result, turn[0].result)
                               for each, turn in zip(measured, turns, strict=True))
        table.add_row(model, f'{contender.load_seconds:.1f}',
                      f'{1000 * statistics.median(each.seconds for each in measured):.0f}', f'{ratio:.2f}',
                      f'{max(each.peak for each in measured) / 2 ** 20:.0f}', f'{100 * same:.2f} %')
    return table


def _images(args: argparse.Namespace) -> list[Path]:
    if args.images:
        images = [source.path for source in find_sources(args.images) if not source.is_video][:args.limit]
        if not images:
            raise InputError('--images names no image')
        return images
    runs = [model for model in args.models if Path(model).suffix not in runtime.ENGINE_SUFFIXES]
    if not runs:
        raise InputError('exported models have no validation images: give --images')
    check_host_packages()
    from mmengine.config import Config

    return images_of_run(Config.fromfile(find_weights(runs[0])[0]), 'val_dataloader', args.limit)


def main() -> int | str:
    """Run the command; return the exit status, or the error."""
    args = parse_arguments()
    try:
        images = _images(args)
        table = compare(args.models, images, args.threads or os.cpu_count() or 1)
    except OPENING_ERRORS as error:
        return f'error: {error}'
    Console().print(table)
    print(f'{len(images)} images; ratio: median of the ratios to the first model, image by image; '
          'same pixels: classes as with the first model')
    return 0
