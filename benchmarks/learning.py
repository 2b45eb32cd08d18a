"""Train K-Net, Mask2Former and Mask R-CNN for the same CPU time on the same data, and write how well they learned.

    python benchmarks/learning.py shapes --data data/shapes_clear --iterations 1000
    python benchmarks/learning.py own --data data/nuclei --iterations 280 --only K-Net --seeds 0

The iterations are K-Net's; the others get as many as take the same time, which is measured once, in turns.

Every run is a row of docs/learning.csv, and a run that has its row is not repeated. Two calls may run side by side. The
table of docs/recipe.md is written from the rows.
"""

import argparse
import copy
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import groupby, product
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from marked_page import replace_between
from mmengine.config import Config, DictAction
from mmengine.hooks import Hook
from mmengine.runner import Runner

from knet_plugin.datasets.description import DataDescription

ROOT = Path(__file__).resolve().parents[1]
CSV, PAGE = ROOT / 'docs/learning.csv', ROOT / 'docs/recipe.md'
BEGIN, END = '<!-- table: written by benchmarks/learning.py -->', '<!-- end of the table -->'
METRICS = {'PQ': 'coco_panoptic/PQ', 'PQ things': 'coco_panoptic/PQ_th', 'PQ stuff': 'coco_panoptic/PQ_st',
           'AP': 'coco/segm_mAP', 'AP50': 'coco/segm_mAP_50', 'AP75': 'coco/segm_mAP_75', 'mIoU': 'mIoU'}
KEY = ('data', 'task', 'length', 'model', 'options', 'seed')  # length: iterations of K-Net
COLUMNS = (*KEY, 'iterations', 'cpu_seconds', 'peak_mib', *METRICS)
TURNS, SKIPPED = 14, 2  # iterations of each model to measure how long they take; the first are slower
PEERS = 'configs/recipe'
MODELS = {
    'shapes': {
        'K-Net, paper': 'configs/panoptic/knet-s3_r18-s_fpn_1xb8-adamw-1k_shapes-panoptic-128x128.py',
        'K-Net': 'configs/recipe/knet-s3_r18-s_1xb8-adamw-1k_shapes-panoptic-128x128.py',
        'Mask2Former': 'configs/panoptic/mask2former_r18-s_1xb8-adamw-1k_shapes-panoptic-128x128.py',
        'Mask R-CNN': 'configs/instance/mask-rcnn_r18-s_fpn_1xb8-adamw-1k_shapes-instance-128x128.py',
    },
    'own': {
        'K-Net': None,  # the config that `knet train --data` writes
        'Mask2Former': f'{PEERS}/mask2former_effnet-lite0_{{task}}.py',
        'Mask R-CNN': f'{PEERS}/mask-rcnn_effnet-lite0_{{task}}.py',
    },
}


def shapes_config(args: argparse.Namespace, model: str) -> Config:
    """The config of a small model for Shapes."""
    cfg = Config.fromfile(ROOT / MODELS['shapes'][model])
    text = cfg.pretty_text.replace(cfg.train_dataloader.dataset.data_root, f'{args.data.resolve()}/')
    return Config.fromstring(text, '.py')


def own_config(args: argparse.Namespace, model: str) -> Config:
    """The config that ``knet train --data`` writes, with the model of a peer in place of K-Net."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, '-m', 'knet_plugin', 'train', '--data', args.data.resolve(), '--config-only',
                   '--task', args.task]
        subprocess.run(command + args.train_options, check=True, cwd=folder, stderr=subprocess.DEVNULL)
        cfg = Config.fromfile(next(Path(folder, 'work_dirs').glob('*.py')))
    peer = MODELS['own'][model]
    if peer is None:
        return cfg
    description = DataDescription.read(args.data)
    things = len(description.things)
    stuff = len(description.stuff) if args.task == 'panoptic' else 0
    backbone = cfg.model.backbone
    cfg.model = Config.fromfile(ROOT / peer.format(task=args.task)).model
    cfg.model.backbone.init_cfg = backbone.init_cfg
    if 'roi_head' in cfg.model:
        cfg.model.roi_head.bbox_head.num_classes = cfg.model.roi_head.mask_head.num_classes = things
    else:
        for head in (cfg.model.panoptic_head, cfg.model.panoptic_fusion_head):
            head.update(num_things_classes=things, num_stuff_classes=stuff)
        cfg.model.panoptic_head.loss_cls.class_weight = [1.0] * (things + stuff) + [0.1]
    cfg.optim_wrapper.optimizer.lr = args.peer_rate
    return cfg


def set_length(cfg: Config, iterations: int) -> None:
    """Scale the schedule to a number of iterations, with one validation at the end."""
    factor = iterations / cfg.train_cfg.max_iters
    warmup, decay = cfg.param_scheduler
    warmup.end = decay.begin = max(1, round(warmup.end * factor))
    decay.end = max(iterations, warmup.end + 1)
    cfg.train_cfg.update(max_iters=iterations, val_interval=iterations)


def run_config(args: argparse.Namespace, model: str, seed: int) -> Config:
    """The config of a run: in one process, without pictures, with no checkpoint but the last."""
    cfg = (shapes_config if args.case == 'shapes' else own_config)(args, model)
    loaders = (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)
    for loader in loaders:
        loader.update(num_workers=0, persistent_workers=False)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=-1, save_last=True,
                                        save_optimizer=False)
    cfg.default_hooks.pop('visualization', None)
    cfg.custom_hooks = []
    cfg.randomness = dict(seed=seed)
    cfg.work_dir = str(args.work_dir / f'{args.data.name}-{args.task}-{model.replace(" ", "-")}-{seed}')
    cfg.log_level = 'ERROR'
    return cfg


def steps(cfg: Config) -> Iterator[float]:
    """CPU seconds of one training iteration after the other, with rates so small that nothing is learned."""
    cfg = copy.deepcopy(cfg)
    cfg.optim_wrapper.optimizer.lr *= 1e-6
    runner = Runner.from_cfg(cfg)
    runner.model.init_weights()
    wrapper = runner.build_optim_wrapper(cfg.optim_wrapper)
    batches = iter(runner.build_dataloader(cfg.train_dataloader))
    while True:
        begin = time.process_time()
        runner.model.train_step(next(batches), wrapper)
        yield time.process_time() - begin


def contenders(args: argparse.Namespace) -> list[str]:
    """The models that have a config for the task."""
    return [model for model, config in MODELS[args.case].items()
            if config is None or (ROOT / config.format(task=args.task)).exists()]


def relative_speeds(args: argparse.Namespace) -> dict[str, float]:
    """Iterations of each model that take the CPU time of one of K-Net, measured once; the models take turns."""
    file = args.work_dir / f'{args.data.name}-{args.task}-{"".join(args.train_options)}.json'
    if not file.exists():
        models = {model: steps(run_config(args, model, seed=0)) for model in contenders(args)}
        turns = [{model: next(each) for model, each in models.items()} for _ in range(TURNS)][SKIPPED:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({model: median(turn['K-Net'] / turn[model] for turn in turns) for model in models}))
    return json.loads(file.read_text())


class Clock(Hook):
    """Keeps the CPU time from the first training iteration to the last validation, and the metrics."""

    def before_train(self, runner: Runner) -> None:
        """Start."""
        self.begin = time.process_time()

    def before_val(self, runner: Runner) -> None:
        """Stop."""
        self.seconds = time.process_time() - self.begin

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Keep the metrics."""
        self.metrics = dict(metrics or {})


def train(args: argparse.Namespace, model: str, seed: int) -> dict[str, Any]:
    """Train one model for the same CPU time as all, and return its row."""
    iterations = max(1, round(args.iterations * relative_speeds(args)[model]))
    cfg = run_config(args, model, seed)
    cfg.merge_from_dict(args.options)
    set_length(cfg, iterations)
    runner, clock = Runner.from_cfg(cfg), Clock()
    runner.register_hook(clock)
    runner.train()
    metrics = {name: f'{100 * value if "coco/" in key else value:.1f}' for name, key in METRICS.items()
               if (value := clock.metrics.get(key)) is not None}
    return dict(iterations=iterations, cpu_seconds=round(clock.seconds),
                peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, **metrics)


def read_rows() -> list[dict[str, str]]:
    """The finished runs."""
    if not CSV.exists():
        return []
    with CSV.open(newline='') as file:
        return list(csv.DictReader(file))


def table(rows: list[dict[str, str]]) -> str:
    """Means over the seeds, with the lowest and highest value, as Markdown."""
    def kind(row: dict[str, str]) -> tuple[str, ...]:
        return tuple(row[name] for name in KEY[:-1])

    def cell(values: list[float]) -> str:
        if not values:
            return '-'
        spread = f' ({min(values):g} to {max(values):g})' if len(values) > 1 else ''
        return f'{mean(values):.1f}{spread}'

    lines = [f'| data | model | seeds | iterations | CPU seconds | {" | ".join(METRICS)} |', '|---' * 12 + '|']
    for (data, task, _, model, options), group in groupby(sorted(rows, key=kind), kind):
        runs = list(group)
        name = f'{model}, {options}' if options else model
        cells = [cell([float(run[metric]) for run in runs if run[metric]]) for metric in METRICS]
        lengths = [f'{mean(float(run[column]) for run in runs):,.0f}' for column in ('iterations', 'cpu_seconds')]
        lines.append(f'| {" | ".join([f"{data}, {task}", name, str(len(runs)), *lengths, *cells])} |')
    return '\n'.join(lines)


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description='How well models learn in the same CPU time')
    parser.add_argument('case', choices=MODELS, nargs='?', help='without it, only the table is written')
    parser.add_argument('--data', type=Path, help='what make_shapes or `knet data prepare` wrote')
    parser.add_argument('--task', help='of own data (default: as in data.yml)')
    parser.add_argument('--iterations', type=int, default=1000, help='of K-Net')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1])
    parser.add_argument('--only', nargs='+', metavar='MODEL', help='train these')
    parser.add_argument('--options', nargs='+', action=DictAction, default={},
                        help='changes of the config, KEY=VALUE; the time that they take is not made up for')
    parser.add_argument('--train-options', nargs='+', default=[], help='further options of `knet train`')
    parser.add_argument('--peer-rate', type=float, default=0.001, help='learning rate of other models on own data')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/learning'))
    return parser.parse_args()


def main() -> None:
    """Train what is not trained yet, then write the table."""
    args = parse_arguments()
    torch.set_num_threads(1)
    if args.case:
        args.task = args.task or ('panoptic' if args.case == 'shapes' else DataDescription.read(args.data).task)
    for seed, model in product(args.seeds, args.only or contenders(args)) if args.case else ():
        options = ' '.join([*(f'{name}={value}' for name, value in args.options.items()), *args.train_options])
        key = dict(zip(KEY, (args.data.name, args.task, str(args.iterations), model, options, str(seed)), strict=True))
        if any(row | key == row for row in read_rows()):
            continue
        row = {**key, **train(args, model, seed)}
        new = not CSV.exists()
        with CSV.open('a', newline='') as file:
            writer = csv.DictWriter(file, COLUMNS)
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(row, flush=True)
    replace_between(PAGE, BEGIN, END, table(read_rows()))


if __name__ == '__main__':
    main()
