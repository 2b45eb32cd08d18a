"""Train a model: semantic configs run on mmseg, instance and panoptic ones on mmdet, both through mmengine's Runner."""

import argparse

from mmengine.config import Config

from knet_plugin.cli import add_run_arguments, load_run_config
from knet_plugin.distributed import build_runner


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Train a K-Net model')
    parser.add_argument('config', help='path or name of a config')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='go on from a checkpoint; without a value, from the latest in the work folder')
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help='scale the learning rate with the actual batch size')
    add_run_arguments(parser)
    return parser.parse_args()


def enable_amp(cfg: Config) -> None:
    """Switch the optimizer's wrapper to mixed precision.

    Raises:
        SystemExit: The config uses another wrapper, which knows nothing of mixed precision.
    """
    wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if wrapper == 'AmpOptimWrapper':
        return
    if wrapper != 'OptimWrapper':
        raise SystemExit(f'error: --amp replaces an OptimWrapper, but the config has {wrapper}')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def enable_lr_scaling(cfg: Config) -> None:
    """Let the runner scale the learning rate.

    Raises:
        SystemExit: The config does not say for which batch size its learning rate is meant.
    """
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise SystemExit('error: --auto-scale-lr needs auto_scale_lr.base_batch_size in the config')
    cfg.auto_scale_lr.enable = True


def main() -> None:
    """Train as the command line says."""
    args = parse_arguments()
    cfg = load_run_config(args)
    if args.amp:
        enable_amp(cfg)
    if args.auto_scale_lr:
        enable_lr_scaling(cfg)
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    build_runner(cfg).train()


if __name__ == '__main__':
    main()
