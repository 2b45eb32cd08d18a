"""Segment images, folders and videos with a trained model, and draw the results."""

from __future__ import annotations

import argparse
import contextlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import track

from knet_plugin import runtime
from knet_plugin.inference.inputs import Frame, InputError, find_sources, number_of_frames, read_frames
from knet_plugin.inference.opening import OPENING_ERRORS, open_predictor
from knet_plugin.inference.outputs import PictureWriter, ResultWriter
from knet_plugin.visualization import PARTS, Result, score_line, sheet

if TYPE_CHECKING:
    from knet_plugin import Predictor

__all__ = ['main']

FEW = 20  # images; of more, only the summary is printed


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog='knet predict', description=__doc__)
    parser.add_argument('run', metavar='MODEL',
                        help='work folder of a training, path or name of a config, or exported model')
    parser.add_argument('inputs', nargs='+', metavar='INPUT', help='image, video, folder or quoted pattern')
    parser.add_argument('-o', '--out', type=Path, required=True, metavar='DIR',
                        help='folder for the results: DIR/NAME.jpg, in the subfolders of the inputs')
    parser.add_argument('--checkpoint', metavar='FILE|URL',
                        help='weights (default: the best of the work folder, or the published ones of the config)')
    parser.add_argument('--score', type=float, metavar='S', help='lowest score of an object (default: 0.3)')
    parser.add_argument('--what', choices=(*PARTS, 'all'),
                        help='what to draw (default: the first of these that the model gives)')
    parser.add_argument('--sheet', action='store_true', help='draw the image and its results side by side in one file')
    parser.add_argument('--json', action='store_true',
                        help='write DIR/results too: COCO JSON, COCO panoptic JSON with PNGs, and label maps')
    parser.add_argument('--batch', type=int, default=1, metavar='N', help='images per batch (default: 1)')
    parser.add_argument('--device', help='for example cpu or cuda:1 (default: a GPU if there is one)')
    args = parser.parse_args()
    if args.batch < 1:
        parser.error(f'argument --batch: must be at least 1, got {args.batch}')
    if args.score is not None and not 0 <= args.score <= 1:
        parser.error(f'argument --score: must be from 0 to 1, got {args.score}')
    if Path(args.run).suffix in runtime.ENGINE_SUFFIXES and (args.checkpoint or args.device or args.batch > 1):
        parser.error(f'--checkpoint, --device and --batch are not for an exported model: {args.run}')
    return args


def pictures(predictor: Predictor | runtime.Predictor, frame: Frame, result: Result,
             args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Draw a result; the key of a picture is the ending of its file name."""
    kinds = result.parts
    if args.what and args.what != 'all':
        if args.what not in kinds:
            raise InputError(f'--what {args.what}: this model gives {" and ".join(kinds)}')
        kinds = [args.what]
    elif not args.what and not args.sheet:
        kinds = kinds[:1]
    drawn = [predictor.draw(frame.image, result, kind) for kind in kinds]
    if args.sheet:
        return {'': sheet([[predictor.reader.picture(frame.image), *drawn]], ['image', *kinds])}
    return {'' if i == 0 else f'_{kind}': picture for i, (kind, picture) in enumerate(zip(kinds, drawn, strict=True))}


def summary(lines: list[tuple[str, str]], written: list[Path], failed: list[str], folder: Path) -> str:
    """Return what the command says at the end; ``lines`` has the name and the score line of each image."""
    empty = [f'{name}: {line}' for name, line in lines if line.startswith('0 of')]
    text = [f'{name}: {line}' for name, line in lines] if len(lines) <= FEW else empty[:FEW]
    if len(empty) > FEW < len(lines):
        text.append(f'... and {len(empty) - FEW} more of {len(lines)} images without an object above the threshold')
    text.append(f'{len(written)} files in {folder}')
    if empty:
        text.append(f'{len(empty)} of {len(lines)} images have no object above the threshold; lower it with --score')
    return '\n'.join([*text, *(f'not read: {line}' for line in failed)])


def predict(args: argparse.Namespace) -> int:
    """Write the results; return the exit status: 1 if a file could not be read."""
    sources = find_sources(args.inputs, leave_out=args.out)
    predictor = open_predictor(args.run, args.checkpoint, args.device, args.score, args.batch)
    failed: list[str] = []
    lines: list[tuple[str, str]] = []
    frames = iter(track(read_frames(sources, predictor.reader, failed), 'Predicting', number_of_frames(sources),
                        console=Console(stderr=True)))
    writer = ResultWriter(args.out / 'results', predictor.classes, predictor.num_things, predictor.score_thr)
    drawing = PictureWriter(args.out)
    with contextlib.closing(drawing), writer if args.json else contextlib.nullcontext():
        while batch := list(itertools.islice(frames, args.batch)):
            for frame, result in zip(batch, predictor([frame.image for frame in batch]), strict=True):
                drawing.add(frame, pictures(predictor, frame, result, args))
                if args.json:
                    writer.add(frame, result)
                name = frame.source.file_name + ('' if frame.number is None else f', frame {frame.number}')
                lines.append((name, score_line(result, predictor.score_thr)))
    print(summary(lines, drawing.written, failed, args.out))
    return 1 if failed else 0


def main() -> int | str:
    """Run the command; return the exit status, or the error."""
    try:
        return predict(parse_arguments())
    except OPENING_ERRORS as error:
        return f'error: {error}'
