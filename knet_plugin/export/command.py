"""Export a trained model to one file that runs without torch and OpenMMLab."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from knet_plugin import runtime
from knet_plugin.inference.inputs import find_sources
from knet_plugin.inference.opening import OPENING_ERRORS, open_predictor
from knet_plugin.inference.run_folder import RunError, images_of_run
from knet_plugin.runtime.model_info import PRECISIONS

__all__ = ['main']

CALIBRATION_IMAGES = 32
FORMATS = {'onnx': '.onnx', 'openvino': '.xml', 'torch-export': '.pt2'}  # ending of the file


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog='knet export', description=__doc__)
    parser.add_argument('run', metavar='MODEL', help='work folder of a training, or path or name of a config')
    parser.add_argument('-o', '--out', type=Path, required=True, metavar='FILE',
                        help='NAME.onnx, NAME.xml (OpenVINO, with NAME.bin) or NAME.pt2 (torch.export)')
    parser.add_argument('--format', choices=FORMATS, help='default: that of the file\'s ending')
    parser.add_argument('--checkpoint', metavar='FILE|URL',
                        help='weights (default: the best of the work folder, or the published ones of the config)')
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument('--dynamic', action='store_true', help='take images of all sizes')
    sizes.add_argument('--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'),
                       help='fixed size of the input in pixels (default: that of Resize in the config)')
    parser.add_argument('--postprocess', choices=('in', 'out'), default='in',
                        help='"in": the file returns results; "out": it returns logits (default: in)')
    parser.add_argument('--precision', choices=PRECISIONS, default='fp32',
                        help='fp16: halve the weights; int8: compute convolutions with 8-bit integers (default: fp32)')
    parser.add_argument('--calibration', nargs='+', metavar='INPUT',
                        help=f'images, folders or quoted patterns; {CALIBRATION_IMAGES} of these images give int8 the '
                             'ranges of its integers (default: training images of the config)')
    parser.add_argument('--score', type=float, metavar='S', help='lowest score of an object (default: 0.3)')
    args = parser.parse_args()
    if args.format:
        args.out = args.out.with_suffix(FORMATS[args.format]) if not args.out.suffix else args.out
    if args.out.suffix not in FORMATS.values() or args.format and args.out.suffix != FORMATS[args.format]:
        wanted = FORMATS[args.format] if args.format else ', '.join(FORMATS.values())
        parser.error(f'argument -o: {args.out} must end with {wanted}')
    if args.calibration and args.precision != 'int8':
        parser.error('argument --calibration: only --precision int8 needs it')
    if args.size and min(args.size) < 1:
        parser.error(f'argument --size: must be positive, got {args.size}')
    if args.score is not None and not 0 <= args.score <= 1:
        parser.error(f'argument --score: must be from 0 to 1, got {args.score}')
    return args


def main() -> int | str:
    """Run the command; return the exit status, or the error."""
    args = parse_arguments()
    try:
        predictor = open_predictor(args.run, args.checkpoint, 'cpu', args.score)
        if isinstance(predictor, runtime.Predictor):
            raise RunError(f'{args.run} is exported already')
        from knet_plugin.export.exporting import export_model  # here, because it needs the hosts

        images = _calibration_images(predictor.cfg, args.calibration) if args.precision == 'int8' else []
        deviations = export_model(predictor, args.out, args.size and tuple(args.size), args.dynamic,
                                  args.postprocess == 'out', args.precision, images)
    except OPENING_ERRORS as error:
        return f'error: {error}'
    files = [args.out, args.out.with_suffix('.bin')] if args.out.suffix == '.xml' else [args.out]
    print(f'{args.out}: {sum(file.stat().st_size for file in files) / 2 ** 20:.1f} MiB')
    if deviations:
        found = ', '.join(f'{name} {value:.1g}' for name, value in deviations.items())
        print(f'deviation from torch on images of noise: {found}')
    elif args.postprocess == 'in':
        print(f'compare its scores with those of the checkpoint: knet test {args.run} {args.out}')
    return 0


def _calibration_images(cfg: Any, given: list[str] | None) -> list[Path]:
    if not given:
        try:
            return images_of_run(cfg, 'train_dataloader', CALIBRATION_IMAGES)
        except RunError as error:
            raise RunError(f'{error}: give --calibration') from error
    images = [source.path for source in find_sources(given) if not source.is_video]
    return images[::max(1, len(images) // CALIBRATION_IMAGES)][:CALIBRATION_IMAGES]
