"""Evaluate a model: semantic configs run on mmseg, instance and panoptic ones on mmdet."""

import argparse
from pathlib import Path

from mmengine.config import Config

from knet_plugin.cli import add_run_arguments, load_run_config
from knet_plugin.engine.runner import build_runner, leave_group
from knet_plugin.orphans import end_together

PICKLES = ('.pkl', '.pickle')


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Evaluate a K-Net model')
    parser.add_argument('config', help='path or name of a config')
    parser.add_argument('checkpoint', help='checkpoint to evaluate')
    parser.add_argument('--out', metavar='PATH',
                        help='keep the predictions: in a .pkl file, or (semantic) as label images in a folder')
    parser.add_argument('--show', action='store_true', help='show the predictions in windows')
    parser.add_argument('--show-dir', metavar='DIR', help='draw the predictions into this folder')
    parser.add_argument('--wait-time', type=float, default=2, metavar='SECONDS', help='how long a window stays')
    parser.add_argument('--tta', action='store_true',
                        help='augment the test images, with the config\'s tta_model and tta_pipeline')
    add_run_arguments(parser)
    return parser.parse_args()


def enable_drawing(cfg: Config, args: argparse.Namespace) -> None:
    """Draw or show the predictions.

    Raises:
        SystemExit: The config has no hook that draws.
    """
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise SystemExit('error: --show and --show-dir need a visualization hook in the config\'s default_hooks')
    hook.update(draw=True, interval=1, show=args.show, wait_time=args.wait_time)
    if args.show_dir and 'Det' in hook.type:
        hook.test_out_dir = args.show_dir
    elif args.show_dir:
        cfg.visualizer.save_dir = args.show_dir


def enable_tta(cfg: Config) -> None:
    """Wrap the model so that it sees each image in several forms, and feed it those.

    Raises:
        SystemExit: The config does not say which forms.
    """
    missing = [key for key in ('tta_model', 'tta_pipeline') if key not in cfg]
    if missing:
        raise SystemExit(f'error: --tta needs {" and ".join(missing)} in the config')
    cfg.model = dict(cfg.tta_model, module=cfg.model)
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:  # wrapped, for instance repeated
        dataset = dataset.dataset
    dataset.pipeline = cfg.tta_pipeline


def keep_predictions(cfg: Config, out: str) -> None:
    """Make the evaluation write the predictions too.

    Raises:
        SystemExit: A folder is asked for, but no metric of the config writes into one.
    """
    metrics = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    if Path(out).suffix in PICKLES:
        # mmdet's own keeps masks as run lengths instead of full arrays.
        dump = 'DumpDetResults' if cfg.get('default_scope') == 'mmdet' else 'DumpResults'
        metrics = [*metrics, dict(type=dump, out_file_path=out)]
    else:
        writers = [metric for metric in metrics if metric.type == 'IoUMetric']
        if not writers:
            raise SystemExit(f'error: only semantic results go into a folder; give --out a name in {PICKLES}')
        for metric in writers:
            metric.output_dir = out
    cfg.test_evaluator = metrics


def main() -> None:
    """Evaluate as the command line says."""
    args = parse_arguments()
    end_together()
    cfg = load_run_config(args)
    cfg.load_from = args.checkpoint
    if args.show or args.show_dir:
        enable_drawing(cfg, args)
    if args.tta:
        enable_tta(cfg)
    if args.out:
        keep_predictions(cfg, args.out)
    build_runner(cfg).test()


if __name__ == '__main__':
    main()
    leave_group()
