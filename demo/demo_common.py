"""Options, training and pictures of the demos."""

import argparse
import json
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
from knet_plugin.datasets.shapes import PALETTE


class ProgressBarHook(Hook):
    """Show the progress of the training in one line."""

    def before_train(self, runner: Runner) -> None:
        """Start the bar, at the iteration where the training starts."""
        self._bar = ProgressBar(runner.max_iters)
        self._bar.completed = runner.iter

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Advance the bar."""
        self._bar.update()


def parse_arguments(description: str, work_dir: str) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--work-dir', type=Path, default=work_dir, help='folder for checkpoints, table and pictures')
    parser.add_argument('--iterations', type=int, default=1000, help='length of each training')
    parser.add_argument('--num-train', type=int, default=800, help='number of training images')
    parser.add_argument('--num-val', type=int, default=200, help='number of test images')
    return parser.parse_args()


def train(name: str, args: argparse.Namespace) -> Runner:
    """Train a config, or continue from its latest checkpoint."""
    cfg = Config.fromfile(resolve_config(name))
    cfg.train_cfg.update(max_iters=args.iterations, val_interval=args.iterations)
    warmup, decay = cfg.param_scheduler
    warmup.end = decay.begin = max(args.iterations // 10, 1)
    decay.end = args.iterations
    cfg.default_hooks.checkpoint.update(type='knet_plugin.CheckpointHook', interval=max(args.iterations // 4, 1))
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None  # the demos test once, at the end
    cfg.randomness = dict(seed=0)
    cfg.work_dir = str(args.work_dir / name)
    cfg.log_level = 'ERROR'
    cfg.resume = True
    runner = Runner.from_cfg(cfg)
    runner.register_hook(ProgressBarHook())
    print(f'Training {name}: {sum(p.numel() for p in runner.model.parameters()) / 1e6:.2f} M parameters')
    runner.train()
    return runner


def show_table(title: str, table: dict[str, float], work_dir: Path) -> None:
    """Print a table of percentages and write it to ``results.json``."""
    print(f'\n\n{title}, in percent')
    for name, value in table.items():
        print(f'  {name:<16}{value:6.2f}')
    (work_dir / 'results.json').write_text(json.dumps(table, indent=2) + '\n')


def to_rgb(image: torch.Tensor) -> np.ndarray:
    """Image of a data loader, (3, H, W) BGR, as (H, W, 3) RGB."""
    return image.numpy().transpose(1, 2, 0)[..., ::-1]


def paint(labels: torch.Tensor) -> np.ndarray:
    """Class indices (H, W) as colours, (H, W, 3); other labels are black."""
    colours = np.zeros((256, 3), np.uint8)
    colours[:len(PALETTE)] = PALETTE
    return colours[labels.numpy()]


@torch.no_grad()
def kernel_outputs(model: torch.nn.Module, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask probabilities of all kernels before and after each update, (B, S + 1, N, h, w), and scores (B, n)."""
    proposals, updates = model.panoptic_head.stages(model.extract_feat(inputs))
    masks = torch.stack([stage.mask_logits for stage in (proposals, *updates)], dim=1).sigmoid().cpu()
    classes = updates[-1].class_logits[:, :model.panoptic_head.kernel_head.num_kernels]
    return masks, classes[..., :model.panoptic_head.num_things_classes].sigmoid().amax(dim=2).cpu()


def heat_map(values: torch.Tensor) -> np.ndarray:
    """Values (H, W) from 0 to 1 as colours, (H, W, 3)."""
    return cv2.applyColorMap((255 * values).byte().numpy(), cv2.COLORMAP_VIRIDIS)[..., ::-1]


def draw_grid(titles: list[str], rows: list[list[np.ndarray]], path: Path) -> None:
    """Write rows of (H, W, 3) tiles, enlarged, with a title above each column."""
    lines = []
    for row in rows:
        tiles = [cv2.resize(np.ascontiguousarray(tile), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
                 for tile in row]
        lines.append(np.hstack([np.pad(tile, ((0, 6), (0, 6), (0, 0)), constant_values=255) for tile in tiles]))
    width = lines[0].shape[1]
    header = np.full((28, width, 3), 255, np.uint8)
    for i, title in enumerate(titles):
        cv2.putText(header, title, (i * width // len(titles) + 4, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0))
    cv2.imwrite(str(path), np.vstack([header, *lines])[..., ::-1])
    print(f'Picture: {path}')
