"""The config of a run from the command line, for the scripts that train and test."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from mmengine.config import Config, DictAction

from knet_plugin.cli import ResourceError, resolve_config
from knet_plugin.engine.option_check import check_options, unread_options
from knet_plugin.engine.runner import add_run_parts

__all__ = ['add_run_arguments', 'load_run_config']


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that training and testing have in common."""
    parser.add_argument('--work-dir', metavar='DIR',
                        help='folder for logs and results (default: that of the config, or work_dirs/CONFIG)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='settings that override the config, for example train_cfg.max_iters=100')
    parser.add_argument('--bare', action='store_true',
                        help='run the config as it is: without the hooks and the short console output of this tool')
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none',
                        help='what started the processes of this run: torchrun, srun or mpirun (default: none, one '
                        'process)')
    # torch.distributed.launch passes the rank as an argument.
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0, help=argparse.SUPPRESS)


def load_run_config(args: argparse.Namespace) -> Config:
    """Read the config that ``args.config`` and the arguments of ``add_run_arguments`` describe.

    Unless ``args.bare`` is set, it gets the hooks of ``add_run_parts``. An unknown
    config or a misspelt option ends the process.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    options = args.cfg_options or {}
    try:
        path = resolve_config(args.config)
        cfg = Config.fromfile(path)
        check_options(cfg, options)
    except (ResourceError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error
    cfg.launcher = args.launcher
    if unread := unread_options(cfg, options):
        print(f'warning: --cfg-options {" ".join(unread)}: only a variable of the config, which has been used already; '
              'set the fields that were made from it', file=sys.stderr)
    cfg.merge_from_dict(options)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if (loader := cfg.get(name)) and loader.get('num_workers') == 0:
            loader.persistent_workers = False  # torch refuses to keep processes that do not exist
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs', path.stem))
    if not args.bare:
        add_run_parts(cfg)
    return cfg
