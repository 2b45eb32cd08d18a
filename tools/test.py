"""Evaluate a trained model on the test data of its config.

For the work folder of a training, the best checkpoint is taken, and a report is written to its subfolder test/: scores,
pictures beside the ground truth, and which classes are confused.
"""

import argparse
import os
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process

from knet_plugin.datasets.check import DataError
from knet_plugin.datasets.config_parts import plain_datasets
from knet_plugin.engine.run_config import add_run_arguments, load_run_config
from knet_plugin.engine.runner import build_runner, leave_group, make_work_folder, run_console
from knet_plugin.engine.safe_loading import safe_loading
from knet_plugin.inference.run_folder import RunError, find_run
from knet_plugin.runtime import ENGINE_SUFFIXES, EngineError


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog='knet test', description=__doc__,
        usage='\n  knet test WORK_DIR [CHECKPOINT|EXPORTED] [OPTION ...]\n  knet test CONFIG CHECKPOINT [OPTION ...]')
    parser.add_argument('config', metavar='WORK_DIR|CONFIG', help='work folder of a training, or a config')
    parser.add_argument('checkpoint', nargs='?', metavar='CHECKPOINT',
                        help='checkpoint or exported model to evaluate (default: the best of the work folder)')
    parser.add_argument('--score', type=float, metavar='S',
                        help='lowest score of an object in pictures and confusions, and in panoptic maps, which an '
                             'exported model makes with its own (default: 0.3)')
    parser.add_argument('--pictures', type=int, metavar='N',
                        help='images on the sheets of the report (default: 24); with CONFIG, no N means no report')
    parser.add_argument('--out', metavar='PATH',
                        help='save the predictions in a .pkl file, or (semantic) as label images in a folder')
    parser.add_argument('--show', action='store_true', help='show the predictions in windows')
    parser.add_argument('--show-dir', metavar='DIR', help='draw each prediction to DIR/NAME.jpg')
    parser.add_argument('--wait-time', type=float, default=2, metavar='SECONDS',
                        help='how long a window of --show stays open')
    parser.add_argument('--tta', action='store_true',
                        help='test-time augmentation with the config\'s tta_model and tta_pipeline')
    add_run_arguments(parser)
    args = parser.parse_args()
    args.exported = Path(args.checkpoint or '').suffix in ENGINE_SUFFIXES
    if args.exported and (args.tta or args.launcher != 'none'):
        parser.error(f'{args.checkpoint} is tested in one process, without --tta')
    if args.score is not None and not 0 <= args.score <= 1:
        parser.error(f'argument --score: must be from 0 to 1, got {args.score}')
    return args


def enable_windows(cfg: Config, wait_time: float) -> None:
    """Show the predictions with the config's visualization hook."""
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise SystemExit('error: --show needs default_hooks.visualization in the config')
    hook.update(draw=True, interval=1, show=True, wait_time=wait_time)


def enable_pictures(cfg: Config, folder: str, score: float | None) -> None:
    """Draw the predictions into a folder."""
    options = {} if score is None else dict(score_thr=score)
    hook = dict(type='knet_plugin.PictureHook', out_dir=os.path.abspath(folder), **options)
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), hook]


def enable_tta(cfg: Config) -> None:
    """Wrap the model for test-time augmentation and load the images with ``tta_pipeline``."""
    missing = [key for key in ('tta_model', 'tta_pipeline') if key not in cfg]
    if missing:
        raise SystemExit(f'error: --tta needs {" and ".join(missing)} in the config')
    cfg.model = dict(cfg.tta_model, module=cfg.model)
    for dataset in plain_datasets(cfg.test_dataloader.dataset):
        dataset.pipeline = cfg.tta_pipeline


def save_predictions(cfg: Config, out: str) -> None:
    """Let the evaluation save the predictions in a .pkl file, or as label images in a folder."""
    metrics = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    if Path(out).suffix in ('.pkl', '.pickle'):
        # mmdet's own class saves masks in run-length encoding instead of full arrays.
        dump = 'DumpDetResults' if cfg.get('default_scope') == 'mmdet' else 'DumpResults'
        metrics = [*metrics, dict(type=dump, out_file_path=out)]
    else:
        writers = [metric for metric in metrics if metric.type == 'IoUMetric']
        if not writers:
            raise SystemExit(f'error: --out {out} must end in .pkl; only semantic predictions are saved in a folder')
        for metric in writers:
            metric.output_dir = out
    cfg.test_evaluator = metrics


def find_files(args: argparse.Namespace) -> None:
    """Replace a work folder by its config and checkpoint; the report goes into its subfolder ``test``.

    An exported model has a folder of its own, for comparison.
    """
    folder = Path(args.config)
    name = f'test-{Path(args.checkpoint).name}' if args.exported else 'test'
    if args.checkpoint and not folder.is_dir():
        if args.exported and args.work_dir is None:  # mmengine writes the config there, with another model
            args.work_dir = str(Path('work_dirs', folder.stem, name))
        return
    try:
        config, checkpoint = find_run(args.config, args.checkpoint)
    except RunError as error:
        raise SystemExit(f'error: {error}') from error
    args.config, args.checkpoint = str(config), str(checkpoint)
    args.work_dir = args.work_dir or str((folder if folder.is_dir() else checkpoint.parent) / name)
    args.pictures = 24 if args.pictures is None else args.pictures


def add_report(cfg: Config, args: argparse.Namespace) -> None:
    """Let the test write a report into the work folder, if one is wanted."""
    options = {} if args.score is None else dict(score_thr=args.score)
    if args.score is not None and 'panoptic_head' in cfg.model and 'KNet' in str(cfg.model.type):
        cfg.model.test_cfg = dict(cfg.model.get('test_cfg') or {}, instance_score_thr=args.score)
    if args.pictures is not None:
        hook = dict(type='knet_plugin.ReportHook', folder=cfg.work_dir, pictures=args.pictures, **options)
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), hook]


def main() -> None:
    """Evaluate the checkpoint."""
    args = parse_arguments()
    find_files(args)
    cfg = load_run_config(args)
    make_work_folder(cfg.work_dir)
    if args.exported:
        cfg.model = dict(type='knet_plugin.ExportedModel', path=args.checkpoint)
    else:
        cfg.load_from = args.checkpoint
    if args.show:
        enable_windows(cfg, args.wait_time)
    if args.show_dir:
        enable_pictures(cfg, args.show_dir, args.score)
    if args.tta:
        enable_tta(cfg)
    if args.out:
        save_predictions(cfg, args.out)
    add_report(cfg, args)
    try:
        with run_console(args.bare), safe_loading():
            build_runner(cfg).test()
    except (DataError, EngineError) as error:
        raise SystemExit(f'error: {error}') from None
    if args.pictures is not None and is_main_process():
        print(f'report: {cfg.work_dir}')


if __name__ == '__main__':
    main()
    leave_group()
