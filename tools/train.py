"""Train a model on mmseg (semantic configs) or mmdet (instance and panoptic configs), or on own data.

    python tools/train.py --data data/ped --minutes 8
"""

import argparse
import sys
from pathlib import Path

from mmengine.config import Config

from knet_plugin.checkpoint import CheckpointError
from knet_plugin.checkpoint.pretrained import fit_line
from knet_plugin.datasets.check import DataError
from knet_plugin.engine.own_command import Start, add_own_data_arguments, check_choice, start_own_run
from knet_plugin.engine.resuming import find_checkpoint
from knet_plugin.engine.run_config import add_run_arguments, load_run_config
from knet_plugin.engine.runner import build_runner, leave_group, make_work_folder, resume_conflict, run_console
from knet_plugin.engine.safe_loading import safe_loading
from knet_plugin.engine.seeding import seed_by_position


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog='knet train', description='Train the model of a config, or a model on your own data.',
        usage='\n  knet train CONFIG [OPTION ...]\n  knet train --data FOLDER [OPTION ...]')
    parser.add_argument('config', nargs='?', metavar='CONFIG', help='path or name of a config')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='continue an interrupted training, by default from its latest intact checkpoint')
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help='scale the learning rate from the batch size of the config to that of this run')
    add_run_arguments(parser)
    add_own_data_arguments(parser)
    args = parser.parse_args()
    check_choice(parser, args)
    return args


def own_data_config(args: argparse.Namespace) -> Start:
    """Write the config of a run on own data and make it the config to train."""
    if args.launcher != 'none' and not args.config_only:
        raise SystemExit(f'error: --data writes a config in one process: add --config-only, then train that config by '
                         f'--launcher {args.launcher}')
    try:
        start = start_own_run(args)
    except (ValueError, OSError) as error:
        raise SystemExit(f'error: {error}') from None
    print(*start.remarks, sep='\n', file=sys.stderr)
    if args.config_only:
        raise SystemExit(0)
    args.config = str(start.config)
    return start


def enable_amp(cfg: Config) -> None:
    """Replace mmengine's ``OptimWrapper`` by the one for mixed precision."""
    wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if wrapper not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise SystemExit(f'error: --amp replaces OptimWrapper, but optim_wrapper.type is {wrapper}')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def enable_lr_scaling(cfg: Config) -> None:
    """Let the runner scale the learning rate."""
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise SystemExit('error: --auto-scale-lr needs auto_scale_lr.base_batch_size in the config')
    cfg.auto_scale_lr.enable = True


def resume_from(cfg: Config, checkpoint: str) -> list[str]:
    """Let the runner resume from a checkpoint, or from the latest intact one if ``checkpoint`` is 'auto'.

    Returns:
        Lines for the log. If 'auto' finds no checkpoint, the config stays as it is and the training starts anew.

    Raises:
        CheckpointError: 'auto' finds only checkpoints that cannot be resumed.
    """
    remarks: list[str] = []
    if checkpoint == 'auto':
        hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
        folders = [Path(hook['out_dir'], Path(cfg.work_dir).name)] if hook.get('out_dir') else []
        found, remarks = find_checkpoint(cfg.work_dir, *folders)
        if found is None:
            return [f'no checkpoint to resume in {cfg.work_dir}: the training starts anew']
        checkpoint = found
    cfg.resume = True
    cfg.load_from = checkpoint
    return [*(f'passed over: {remark}' for remark in remarks), f'resuming from {checkpoint}']


def main() -> str | None:
    """Train; return an error on which all processes agree, if there is one."""
    args = parse_arguments()
    start = own_data_config(args) if args.data else None
    cfg = load_run_config(args)
    make_work_folder(cfg.work_dir)
    if args.amp:
        enable_amp(cfg)
    if args.auto_scale_lr:
        enable_lr_scaling(cfg)
    if not args.bare:
        seed_by_position(cfg)
    remarks, error = [], None
    try:
        remarks = resume_from(cfg, args.resume) if args.resume else []
    except CheckpointError as caught:  # do not end yet: another process may have found a checkpoint, and would wait
        error = f'error: {caught}\nTo start anew, leave out --resume'
    with run_console(args.bare), safe_loading():
        runner = build_runner(cfg)
        error = resume_conflict(error or (cfg.load_from if cfg.get('resume') else 'nothing')) or error
        if error is None:
            for remark in remarks:
                runner.logger.warning(remark)
            if start and start.weights:
                runner.logger.info(fit_line(start.weights, runner.model))
            try:
                runner.train()
            except DataError as caught:  # of all processes
                error = f'error: {caught}'
    return error


if __name__ == '__main__':
    error = main()
    leave_group()
    sys.exit(error)
