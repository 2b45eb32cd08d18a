"""Put K-Net on a segmentor: write the smallest config that inherits from yours, and try it.

    python tools/attach.py mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py -o knet-segformer.py
"""

import argparse
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from knet_plugin.migration import load_source
from knet_plugin.semantic.attach import attach, attached_text
from knet_plugin.semantic.smoke_test import build_segmentor, input_size, measure, shortest_seconds, train_step


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
    """Train for a step, predict, and say what K-Net adds.

    Raises:
        SystemExit: One of them does not run; the message says which.
    """
    print(f'{size[0]} x {size[1]}, CPU', file=sys.stderr)
    models, costs, losses = [], [], []
    for cfg, blame in ((before, 'the config does not run, even without K-Net'),
                       (after, 'it runs without K-Net, but not with it')):
        try:
            models.append(build_segmentor(cfg, size))
            losses.append(train_step(models[-1], size)['loss'])
            costs.append(measure(models[-1], size))
        except Exception as error:  # of the hosts' parts, too
            raise SystemExit(f'error: {blame}: {type(error).__name__}: {error}') from error
    seconds = shortest_seconds(models, size)
    for name, cost, time, loss in zip(('without', 'with K-Net'), costs, seconds, losses, strict=True):
        print(f'{name:>10}  {cost.parameters / 1e6:8.2f} M parameters  {cost.flops / 1e9:9.2f} GFLOPs  '
              f'{time:7.3f} s an image  loss {loss:.3f}', file=sys.stderr)
    print(f'{"ratio":>10}  {costs[1].parameters / costs[0].parameters:8.2f}    '
          f'           {costs[1].flops / costs[0].flops:9.2f}         {seconds[1] / seconds[0]:7.2f}',
          file=sys.stderr)


def base_path(config: str, out: Path | None) -> str:
    """How the written file finds the config: a name, or a path from where the file really is."""
    if '::' in config:
        return config if config.endswith('.py') else f'{config}.py'
    path = os.path.abspath(config)
    if out is None:
        return path
    folder = Path(os.path.abspath(out.parent))
    common = Path(os.path.commonpath([folder, path]))
    # Through a link the way up ends elsewhere, for the system if not for mmengine, which reads it both ways.
    linked = folder.resolve() != common.resolve() / folder.relative_to(common)
    return path if linked else os.path.relpath(path, folder)


def write(out: Path, text: str) -> Config:
    """Write the config and read it again; what cannot be read is not left behind.

    Raises:
        SystemExit: It cannot be written, or not be read again.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
    except OSError as error:
        with suppress(OSError):  # a full disk leaves a part of it, which would be in the way of another try
            out.unlink()
        raise SystemExit(f'error: {out} cannot be written: {error}') from None
    try:
        return Config.fromfile(out)
    except Exception as error:  # a config is code, and can fail as such
        out.unlink()
        raise SystemExit(f'error: {out} cannot be read again: {type(error).__name__}: {error}') from None


def main() -> None:
    """Write the config, read it again, and try it.

    Raises:
        SystemExit: The config cannot be read, K-Net does not go on its head, the output exists already, or the model
            does not run, in which case nothing is left of the output.
    """
    args = parse_arguments()
    if args.stages < 1:
        raise SystemExit(f'error: --stages must be 1 or more, got {args.stages}')
    if args.size and min(args.size) < 1:
        raise SystemExit(f'error: --size must be height and width in pixels, got {args.size[0]} {args.size[1]}')
    if args.out is not None and args.out.suffix != '.py':
        raise SystemExit(f'error: --out must be a file with the ending .py, got {args.out}')
    if args.out is not None and args.out.exists():
        raise SystemExit(f'error: {args.out} exists already')
    try:
        cfg = load_source(args.config)
        imports = cfg.get('custom_imports')
        if isinstance(imports, Mapping):  # where a head of one's own is registered; attach refuses all else
            import_modules_from_strings(**imports)
    except Exception as error:  # a config is code, and can fail as such
        raise SystemExit(f'error: {args.config} cannot be read: {type(error).__name__}: {error}') from None
    if Config._is_lazy_import(cfg.filename):
        raise SystemExit(f'error: {args.config} is of mmengine\'s new style (read_base(), or imports), from which no '
                         'config with _base_ may inherit: use knet_plugin.attach(Config.fromfile(...)).dump(...)')
    try:
        attached = attach(cfg, args.stages)
        text = attached_text(base_path(args.config, args.out), cfg, args.stages)
    except ValueError as error:
        raise SystemExit(f'error: {error}') from None
    if args.out is None:
        print(text)
    else:
        attached = write(args.out, text)  # what is tried is what was written
    if not args.no_trial:
        try:
            try_out(cfg, attached, tuple(args.size) if args.size else input_size(cfg))
        except BaseException:
            if args.out is not None:
                args.out.unlink()
            raise
    if args.out is not None:
        print(f'written to {args.out}')


if __name__ == '__main__':
    main()
