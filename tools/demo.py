"""Train a small FCN without and with K-Net on made-up images, compare the two, and draw what every stage does.

Everything comes from two stock-style configs of this package; the same is done by hand with ``tools/make_shapes.py``,
``tools/train.py`` and ``tools/test.py``. Run again after an interruption, it goes on where it was.
"""

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.utils import ProgressBar
from mmseg.evaluation import IoUMetric
from torch import Tensor

from knet_plugin.cli import resolve_config
from knet_plugin.datasets import CLASSES, PALETTE, make_shapes
from knet_plugin.semantic import IterativeDecodeHead

BASELINE = 'fcn_r18-s_1xb8-adamw-1k_shapes-128x128'
KNET = 'knet-s3_r18-s_fcn_1xb8-adamw-1k_shapes-128x128'
IGNORE = 255


class ProgressBarHook(Hook):
    """Shows the training as one line."""

    def before_train(self, runner: Runner) -> None:
        """Start it where the training starts."""
        self._bar = ProgressBar(runner.max_iters)
        self._bar.completed = runner.iter

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Move it on."""
        self._bar.update()

    def after_train(self, runner: Runner) -> None:
        """Leave its line."""
        print(flush=True)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data-root', type=Path, default=Path('data/shapes'), help='made if it is not there')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'), help='checkpoints, table and picture')
    parser.add_argument('--iterations', type=int, default=1000, help='of training, for each of the two models')
    parser.add_argument('--num-train', type=int, default=800, help='images to make for training')
    parser.add_argument('--num-val', type=int, default=200, help='images to make for the test')
    parser.add_argument('--rows', type=int, default=6, help='images in the picture')
    parser.add_argument('--seed', type=int, default=0)
    return parser.parse_args()


def run_config(name: str, args: argparse.Namespace) -> Config:
    """The named config, on the demo's data and for its iterations."""
    cfg = Config.fromfile(resolve_config(name))
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(args.data_root)
    cfg.train_cfg.update(max_iters=args.iterations, val_interval=args.iterations)
    warmup, decay = cfg.param_scheduler
    warmup.end = decay.begin = max(args.iterations // 10, 1)
    decay.end = args.iterations
    cfg.default_hooks.checkpoint.update(interval=max(args.iterations // 4, 1), max_keep_ckpts=1)
    cfg.randomness = dict(seed=args.seed)
    cfg.work_dir = str(args.work_dir / name)
    cfg.log_level = 'ERROR'
    cfg.resume = True  # from the latest checkpoint in the folder, if any
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None  # tested once, at the end
    return cfg


def train(name: str, args: argparse.Namespace) -> Runner:
    """Train the named config."""
    runner = Runner.from_cfg(run_config(name, args))
    runner.register_hook(ProgressBarHook())
    print(f'Training {name}: {sum(p.numel() for p in runner.model.parameters()) / 1e6:.2f} M parameters')
    runner.train()
    return runner


def stage_results(runner: Runner) -> list[list[dict]]:
    """For each test image its picture, labels, and class map of every stage, all H x W; a list for each batch.

    A plain head has one stage.
    """
    model = runner.model.eval()
    batches = []
    with torch.no_grad():
        for batch in runner.build_dataloader(runner.cfg.test_dataloader):
            data = model.data_preprocessor(batch)
            features = model.extract_feat(data['inputs'])
            head = model.decode_head
            stages = head.stage_logits(features) if isinstance(head, IterativeDecodeHead) else [head(features)]
            size = data['inputs'].shape[-2:]
            maps = [torch.nn.functional.interpolate(logits, size, mode='bilinear').argmax(1) for logits in stages]
            batches.append([
                dict(image=image, labels=sample.gt_sem_seg.data[0], stages=[stage[i] for stage in maps])
                for i, (image, sample) in enumerate(zip(batch['inputs'], data['data_samples'], strict=True))
            ])
    return batches


def mean_iou(predictions: list[Tensor], labels: list[Tensor]) -> float:
    """Mean IoU in percent, as mmseg's ``IoUMetric`` has it."""
    areas = [IoUMetric.intersect_and_union(prediction, label, len(CLASSES), IGNORE)
             for prediction, label in zip(predictions, labels, strict=True)]
    metrics = IoUMetric.total_area_to_metrics(*(sum(area) for area in zip(*areas, strict=True)), ['mIoU'])
    return 100 * float(np.nanmean(metrics['IoU']))


def paint(labels: Tensor) -> np.ndarray:
    """Paint (H, W) class indices as (H, W, 3) colours; ignored pixels are black."""
    colours = np.zeros((256, 3), np.uint8)
    colours[:len(PALETTE)] = PALETTE
    return colours[labels.numpy()]


def draw_panel(baseline: list[dict], knet: list[dict], path: Path) -> None:
    """One row an image: image, ground truth, baseline, and K-Net after each stage."""
    titles = ['image', 'ground truth', 'FCN', *(f'K-Net M{i}' for i in range(len(knet[0]['stages'])))]
    scale, gap = 2, 6
    rows = []
    for plain, ours in zip(baseline, knet, strict=True):
        image = ours['image'].numpy().transpose(1, 2, 0)[..., ::-1]  # the loader's order is BGR
        tiles = [image, *(paint(labels) for labels in (ours['labels'], plain['stages'][-1], *ours['stages']))]
        tiles = [cv2.resize(np.ascontiguousarray(tile), None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
                 for tile in tiles]
        framed = [np.pad(tile, ((0, gap), (0, gap), (0, 0)), constant_values=255) for tile in tiles]
        rows.append(np.concatenate(framed, axis=1))
    header = np.full((28, rows[0].shape[1], 3), 255, np.uint8)
    for i, title in enumerate(titles):
        cv2.putText(header, title, (i * rows[0].shape[1] // len(titles) + 4, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55,
                    (0, 0, 0), 1, cv2.LINE_AA)
    cv2.imwrite(str(path), np.concatenate([header, *rows])[..., ::-1])


def main() -> None:
    """Make the data, train both models, print the table, draw the picture."""
    args = parse_arguments()
    warnings.filterwarnings('ignore', module='mmseg|mmengine|torch')  # of settings that are meant so
    print(f'Making {args.num_train} + {args.num_val} images in {args.data_root} (unless they are there)')
    make_shapes(args.data_root, num_train=args.num_train, num_val=args.num_val, seed=args.seed)
    args.work_dir.mkdir(parents=True, exist_ok=True)

    table: dict[str, float] = {}
    first_batches = []
    for name in (BASELINE, KNET):
        runner = train(name, args)
        measured = float(runner.test()['mIoU'])
        batches = stage_results(runner)
        results = [result for batch in batches for result in batch]
        labels = [result['labels'] for result in results]
        scores = [mean_iou([result['stages'][i] for result in results], labels)
                  for i in range(len(results[0]['stages']))]
        first_batches.append(batches[0][:args.rows])
        if name == BASELINE:
            table['FCN'] = measured
        else:
            table.update({f'FCN + K-Net, M{i}': score for i, score in enumerate(scores[:-1])})
            table[f'FCN + K-Net, M{len(scores) - 1} (its result)'] = measured

    print('\nmIoU on the test images, in percent')
    for row, value in table.items():
        print(f'  {row:<28}{value:6.2f}')
    (args.work_dir / 'results.json').write_text(json.dumps(table, indent=2) + '\n')
    draw_panel(*first_batches, args.work_dir / 'panel.png')
    print(f'\nPicture: {args.work_dir / "panel.png"}\nTable:   {args.work_dir / "results.json"}')


if __name__ == '__main__':
    main()
