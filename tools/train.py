"""Train a model: semantic configs run on mmseg, instance and panoptic ones on mmdet, both through mmengine's Runner."""

import argparse
import sys
from pathlib import Path

from mmengine.config import Config

from knet_plugin.checkpoint import CheckpointError
from knet_plugin.cli import add_run_arguments, load_run_config
from knet_plugin.engine.runner import build_runner, leave_group, resume_conflict
from knet_plugin.orphans import end_together
from knet_plugin.engine.seeding import seed_by_position
from knet_plugin.engine.resuming import find_checkpoint


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Train a K-Net model')
    parser.add_argument('config', help='path or name of a config')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='go on from a checkpoint; without a value, from the latest whole one in the work folder')
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


def resume_from(cfg: Config, checkpoint: str) -> list[str]:
    """Let the runner resume.

    Args:
        cfg: The config; stays as it is if there is no checkpoint, so that the training starts anew.
        checkpoint: 'auto', or which one.

    Returns:
        What there is to say about the choice.

    Raises:
        SystemExit: Under 'auto', there are checkpoints, but none that can be resumed.
    """
    remarks: list[str] = []
    if checkpoint == 'auto':
        hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
        folders = [Path(hook.out_dir, Path(cfg.work_dir).name)] if hook.get('out_dir') else []
        try:
            found, remarks = find_checkpoint(cfg.work_dir, *folders)
        except CheckpointError as error:
            raise SystemExit(f'error: {error}\nTo start anew, leave out --resume') from error
        if found is None:
            return [f'there is no checkpoint in {cfg.work_dir} to resume: the training starts anew']
        checkpoint = found
    cfg.resume = True
    cfg.load_from = checkpoint
    return [*(f'passed over: {remark}' for remark in remarks), f'resuming from {checkpoint}']


def main() -> str | None:
    """Train as the command line says; return an error on which all processes agree, if there is one."""
    args = parse_arguments()
    end_together()
    cfg = load_run_config(args)
    if args.amp:
        enable_amp(cfg)
    if args.auto_scale_lr:
        enable_lr_scaling(cfg)
    remarks, problem = [], None
    try:
        remarks = resume_from(cfg, args.resume) if args.resume else []
    except SystemExit as error:
        if cfg.launcher == 'none':
            raise
        problem = str(error)  # others may have found a checkpoint, and would wait for this process
    seed_by_position(cfg)
    runner = build_runner(cfg)
    choice = problem or (str(cfg.load_from) if cfg.get('resume') else 'nothing')
    problem = resume_conflict(choice) or problem
    if problem:
        return problem
    for remark in remarks:
        runner.logger.warning(remark)
    runner.train()
    return None


if __name__ == '__main__':
    error = main()
    leave_group()
    sys.exit(error)
