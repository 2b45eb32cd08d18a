"""What the demos share: their options, the training with one line of progress, and laying out pictures."""

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.utils import ProgressBar

from knet_plugin.cli import resolve_config
from knet_plugin.datasets.shapes import PALETTE, make_shapes


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


def parse_arguments(description: str, data_root: str, work_dir: str, iterations: int) -> argparse.Namespace:
    """Read the command line; the folders and the number are its defaults."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--data-root', type=Path, default=Path(data_root), help='made if it is not there')
    parser.add_argument('--work-dir', type=Path, default=Path(work_dir), help='checkpoints, table and pictures')
    parser.add_argument('--iterations', type=int, default=iterations, help='of training, for each model')
    parser.add_argument('--num-train', type=int, default=800, help='images to make for training')
    parser.add_argument('--num-val', type=int, default=200, help='images to make for the test')
    parser.add_argument('--rows', type=int, default=6, help='images in the picture')
    parser.add_argument('--seed', type=int, default=0)
    return parser.parse_args()


def make_data(args: argparse.Namespace, **style: float) -> None:
    """Make the images unless they are there; ``style`` is how difficult, as for ``make_shapes``."""
    print(f'Making {args.num_train} + {args.num_val} images in {args.data_root} (unless they are there)')
    make_shapes(args.data_root, num_train=args.num_train, num_val=args.num_val, seed=args.seed, **style)
    args.work_dir.mkdir(parents=True, exist_ok=True)


def train(name: str, args: argparse.Namespace) -> Runner:
    """Train the named config on the demo's data and for its iterations."""
    runner = Runner.from_cfg(_run_config(name, args))
    runner.register_hook(ProgressBarHook())
    print(f'Training {name}: {sum(p.numel() for p in runner.model.parameters()) / 1e6:.2f} M parameters')
    runner.train()
    return runner


def _run_config(name: str, args: argparse.Namespace) -> Config:
    cfg = Config.fromfile(resolve_config(name))
    # Evaluators name their files with the folder of the data in front.
    cfg = Config(_moved(cfg.to_dict(), cfg.train_dataloader.dataset.data_root, f'{args.data_root}/'))
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


def _moved(value: Any, old: str, new: str) -> Any:
    """The config with another data folder, wherever it is named."""
    if isinstance(value, dict):
        return {key: _moved(item, old, new) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_moved(item, old, new) for item in value)
    return value.replace(old, new) if isinstance(value, str) else value


def picture(image: torch.Tensor) -> np.ndarray:
    """(3, H, W) as the loaders give it, in BGR, to (H, W, 3) in RGB."""
    return image.numpy().transpose(1, 2, 0)[..., ::-1]


def paint(labels: torch.Tensor) -> np.ndarray:
    """Paint (H, W) class indices as (H, W, 3) colours; ignored pixels are black."""
    colours = np.zeros((256, 3), np.uint8)
    colours[:len(PALETTE)] = PALETTE
    return colours[labels.numpy()]


def draw_grid(titles: list[str], rows: list[list[np.ndarray]], path: Path, scale: int = 2, gap: int = 6) -> None:
    """Write rows of (H, W, 3) tiles, enlarged, under one title per column."""
    lines = []
    for row in rows:
        tiles = [cv2.resize(np.ascontiguousarray(tile), None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
                 for tile in row]
        lines.append(np.concatenate([np.pad(tile, ((0, gap), (0, gap), (0, 0)), constant_values=255)
                                     for tile in tiles], axis=1))
    header = np.full((28, lines[0].shape[1], 3), 255, np.uint8)
    for i, title in enumerate(titles):
        cv2.putText(header, title, (i * lines[0].shape[1] // len(titles) + 4, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55,
                    (0, 0, 0), 1, cv2.LINE_AA)
    cv2.imwrite(str(path), np.concatenate([header, *lines])[..., ::-1])
