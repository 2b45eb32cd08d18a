"""Export a trained model to one file that runs without torch and OpenMMLab."""

from __future__ import annotations

import argparse
from pathlib import Path

from knet_plugin import runtime
from knet_plugin.inference.opening import OPENING_ERRORS, open_predictor
from knet_plugin.inference.run_folder import RunError

__all__ = ['main']

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
    parser.add_argument('--score', type=float, metavar='S', help='lowest score of an object (default: 0.3)')
    args = parser.parse_args()
    if args.format:
        args.out = args.out.with_suffix(FORMATS[args.format]) if not args.out.suffix else args.out
    if args.out.suffix not in FORMATS.values() or args.format and args.out.suffix != FORMATS[args.format]:
        wanted = FORMATS[args.format] if args.format else ', '.join(FORMATS.values())
        parser.error(f'argument -o: {args.out} must end with {wanted}')
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

        deviations = export_model(predictor, args.out, args.size and tuple(args.size), args.dynamic,
                                  args.postprocess == 'out')
    except OPENING_ERRORS as error:
        return f'error: {error}'
    found = ', '.join(f'{name} {value:.1g}' for name, value in deviations.items())
    size = sum(file.stat().st_size for file in {args.out, args.out.with_suffix('.bin')} if file.exists()) / 2 ** 20
    print(f'{args.out}: {size:.1f} MiB\ndeviation from torch on images of noise: {found}')
    return 0
