"""Put K-Net on a segmentor: write a config that inherits from yours, and try it on random images.

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
from knet_plugin.semantic.smoke_test import build_segmentor, input_size, measure, shortest_seconds, train_step


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Put K-Net on the decode head of an mmseg config, and try it')
    parser.add_argument('config', help='path of a config, or a name such as mmseg::fcn/NAME.py')
    parser.add_argument('--stages', type=int, default=3, help='kernel update stages')
    parser.add_argument('-o', '--out', type=Path, help='new file; without it, the config is printed')
    parser.add_argument('--size', type=int, nargs=2, metavar=('H', 'W'), help='image size of the trial')
    parser.add_argument('--no-trial', action='store_true', help='write only')
    return parser.parse_args()


def try_out(before: Config, after: Config, size: tuple[int, int]) -> None:
    """Train both models for a step, predict, and print what K-Net adds.

    Raises:
        SystemExit: One of them does not run; the message says which.
    """
    models, costs, losses = [], [], []
    for cfg, name in ((before, 'without K-Net'), (after, 'with K-Net')):
        try:
            models.append(build_segmentor(cfg, size))
            losses.append(train_step(models[-1], size)['loss'])
            costs.append(measure(models[-1], size))
        except Exception as error:  # a model may fail in any way
            raise SystemExit(f'error: the model {name} does not run: {type(error).__name__}: {error}') from error
    seconds = shortest_seconds(models, size)
    print(f'{size[0]} x {size[1]}, CPU', file=sys.stderr)
    for name, cost, time, loss in zip(('without', 'with K-Net'), costs, seconds, losses, strict=True):
        print(f'{name:>10}  {cost.parameters / 1e6:8.2f} M parameters  {cost.flops / 1e9:9.2f} GFLOPs  '
              f'{time:7.3f} s an image  loss {loss:.3f}', file=sys.stderr)
    print(f'{"ratio":>10}  {costs[1].parameters / costs[0].parameters:8.2f}               '
          f'{costs[1].flops / costs[0].flops:9.2f}         {seconds[1] / seconds[0]:7.2f}', file=sys.stderr)


def read(name: str) -> Config:
    """Read the config, and import what it names, which may register its decode head.

    Raises:
        SystemExit: It cannot be read, or cannot be inherited from.
    """
    try:
        cfg = load_source(name)
        if imports := cfg.get('custom_imports'):
            import_modules_from_strings(**imports)
    except Exception as error:  # a config is code, and may fail in any way
        raise SystemExit(f'error: {name} cannot be read: {type(error).__name__}: {error}') from None
    if Config._is_lazy_import(cfg.filename):
        raise SystemExit(f'error: {name} is in mmengine\'s new style (read_base), from which _base_ cannot inherit: '
                         'use knet_plugin.attach(Config.fromfile(...)).dump(...)')
    return cfg


def base_path(config: str, out: Path | None) -> str:
    """How the new file refers to the config: by its name or its path, relative unless links would mislead."""
    if '::' in config:
        return f'{config.removesuffix(".py")}.py'
    folder = Path(os.path.abspath(out.parent)) if out else None
    return os.path.relpath(config, folder) if folder and folder == folder.resolve() else os.path.abspath(config)


def main() -> None:
    """Write the config and try it.

    Raises:
        SystemExit: The config cannot be read, K-Net does not support its head, or the model does not run.
    """
    args = parse_arguments()
    if args.stages < 1:
        raise SystemExit(f'error: --stages must be 1 or more, got {args.stages}')
    if args.out and (args.out.suffix != '.py' or args.out.exists()):
        raise SystemExit(f'error: --out must be a new file with suffix .py, but {args.out} '
                         + ('exists already' if args.out.exists() else f'has suffix {args.out.suffix!r}'))
    cfg = read(args.config)
    try:
        attached = attach(cfg, args.stages)
        text = attached_text(base_path(args.config, args.out), cfg, args.stages)
    except ValueError as error:
        raise SystemExit(f'error: {error}') from None
    if not args.no_trial:
        try_out(cfg, attached, tuple(args.size) if args.size else input_size(cfg))
    if args.out is None:
        print(text)
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text)
    print(f'written to {args.out}')


if __name__ == '__main__':
    main()
