"""Put K-Net on a segmentor: write the smallest config that inherits from yours, and try it.

    python tools/attach.py mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py -o knet-segformer.py
"""

import argparse
import os
import sys
from pathlib import Path

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from knet_plugin.migration import load_source
from knet_plugin.semantic.attach import attach, attached_text
from knet_plugin.semantic.trial import build_segmentor, input_size, measure, train_step


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Put K-Net on the decode head of a config of mmseg, and try it')
    parser.add_argument('config', help='path of a config, or a name such as mmseg::fcn/NAME.py')
    parser.add_argument('--stages', type=int, default=3, help='kernel update stages')
    parser.add_argument('-o', '--out', type=Path, help='file to write; it is printed otherwise')
    parser.add_argument('--size', type=int, nargs=2, metavar=('H', 'W'), help='size of the images to try it on')
    parser.add_argument('--no-trial', action='store_true', help='write only')
    return parser.parse_args()


def try_out(before: Config, after: Config, size: tuple[int, int]) -> None:
    """Train for a step, predict, and say what K-Net adds."""
    print(f'{size[0]} x {size[1]}, CPU', file=sys.stderr)
    costs = []
    for name, cfg in (('without', before), ('with K-Net', after)):
        model = build_segmentor(cfg, size)
        losses = train_step(model, size)
        cost = measure(model, size)
        costs.append(cost)
        print(f'{name:>10}  {cost.parameters / 1e6:8.2f} M parameters  {cost.flops / 1e9:9.2f} GFLOPs  '
              f'{cost.seconds:7.3f} s an image  loss {losses["loss"]:.3f}', file=sys.stderr)
    print(f'{"ratio":>10}  {costs[1].parameters / costs[0].parameters:8.2f}    '
          f'           {costs[1].flops / costs[0].flops:9.2f}         {costs[1].seconds / costs[0].seconds:7.2f}',
          file=sys.stderr)


def main() -> None:
    """Write the config, read it again, and try it.

    Raises:
        SystemExit: The config cannot be read, K-Net does not go on its head, the output exists already, or the model
            does not run.
    """
    args = parse_arguments()
    if args.out is not None and args.out.exists():
        raise SystemExit(f'error: {args.out} exists already')
    try:
        cfg = load_source(args.config)
        if imports := cfg.get('custom_imports'):  # where a head of one's own is registered
            import_modules_from_strings(**imports)
    except Exception as error:  # a config is code, and can fail as such
        raise SystemExit(f'error: {args.config} cannot be read: {type(error).__name__}: {error}') from None
    base = args.config
    if '::' not in base:
        base = os.path.relpath(base, args.out.parent) if args.out else os.path.abspath(base)
    elif not base.endswith('.py'):
        base += '.py'
    try:
        attached = attach(cfg, args.stages)
        text = attached_text(base, cfg, args.stages)
    except ValueError as error:
        raise SystemExit(f'error: {error}') from None
    if args.out is None:
        print(text)
    else:
        try:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(text)
            attached = Config.fromfile(args.out)  # what is tried is what was written
        except Exception as error:
            args.out.unlink(missing_ok=True)
            raise SystemExit(f'error: {args.out} cannot be written, or not be read again: {error}') from None
        print(f'written to {args.out}', flush=True)
    if not args.no_trial:
        try:
            try_out(cfg, attached, tuple(args.size) if args.size else input_size(cfg))
        except Exception as error:  # of the hosts' parts, too
            raise SystemExit(f'error: it does not run: {type(error).__name__}: {error}') from error


if __name__ == '__main__':
    main()
