"""Train K-Net and other models for the same CPU time on the same data, and write how well they learned.

    python benchmarks/learning.py shapes --data data/shapes_clear --iterations 1000
    python benchmarks/learning.py own --data data/nuclei --iterations 280 --only K-Net --seeds 0
    python benchmarks/learning.py heads --data data/camvid --iterations 300

The iterations are those of the first model. How many the others get in the same CPU time is measured before, in turns.
Detectors become slower as they find objects, so they stop when they have taken the time of the first model, which must
be trained first; the measured number only sets the length of their warm-up. Semantic heads run the measured number.

Every run is a row of docs/learning.csv, and a run that has its row is not repeated. Two calls may run side by side.
evidence.py makes docs/evidence.md of the rows.
"""

import argparse
import copy
import csv
import hashlib
import json
import shlex
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from learning_models import MODELS, ON_TOP, ROOT, TASKS, contenders, model_config
from mmengine.config import Config, DictAction
from mmengine.hooks import Hook
from mmengine.runner import Runner

from knet_plugin.checkpoint.reading import read_checkpoint, weights_of
from knet_plugin.datasets.description import DataDescription
from knet_plugin.engine.time_limit import TimeLimitHook

CSV = ROOT / 'docs/learning.csv'
METRICS = {'PQ': 'coco_panoptic/PQ', 'PQ things': 'coco_panoptic/PQ_th', 'PQ stuff': 'coco_panoptic/PQ_st',
           'AP': 'coco/segm_mAP', 'AP50': 'coco/segm_mAP_50', 'AP75': 'coco/segm_mAP_75', 'mIoU': 'mIoU'}
KEY = ('data', 'task', 'length', 'model', 'options', 'seed')  # length: iterations of the first model
COLUMNS = (*KEY, 'weights', 'iterations', 'cpu_seconds', *METRICS)
TURNS, SKIPPED = 14, 2  # iterations of each model to measure how long they take; the first are slower
PEER_RATE = 0.001


def weights_hash(cfg: Config) -> str:
    """The start of the SHA-256 of the tensors that a training starts from; '' for random ones."""
    backbone = cfg.model.backbone.get('init_cfg')
    file = cfg.get('load_from') or (backbone and backbone.checkpoint)
    digest = hashlib.sha256()
    for value in weights_of(read_checkpoint(file))[0].values() if file else ():
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()[:8] if file else ''


def set_length(cfg: Config, iterations: int) -> None:
    """Scale the schedule to a number of iterations, with one validation at the end."""
    factor = iterations / cfg.train_cfg.max_iters
    warmup, decay = cfg.param_scheduler
    warmup.end = decay.begin = max(1, round(warmup.end * factor))
    decay.end = max(iterations, warmup.end + 1)
    cfg.train_cfg.update(max_iters=iterations, val_interval=iterations)


def run_config(args: argparse.Namespace, model: str, seed: int) -> Config:
    """The config of a run: in one process, without pictures, with no checkpoint but the last."""
    cfg = model_config(args, model)
    loaders = (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)
    for loader in loaders:
        loader.update(num_workers=0, persistent_workers=False)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=-1, save_last=True,
                                        save_optimizer=False)
    cfg.default_hooks.pop('visualization', None)
    cfg.custom_hooks = []
    cfg.randomness = dict(seed=seed)
    varied = args.iterations, args.options, args.train_options, args.peer_rate, args.stage_rate
    changes = hashlib.sha256(repr(varied).encode()).hexdigest()[:6]
    cfg.work_dir = str(args.work_dir / f'{args.data.name}-{args.task}-{model.replace(" ", "-")}-{changes}-{seed}')
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


def relative_speeds(args: argparse.Namespace) -> dict[str, float]:
    """Iterations of each model that take the CPU time of one of the first, measured once; the models take turns."""
    options = '-'.join(args.train_options).replace('/', '-')
    file = args.work_dir / f'{args.case}-{args.data.name}-{args.task}-{options}.json'
    if not file.exists():
        models = {model: steps(run_config(args, model, seed=0)) for model in contenders(args)}
        turns = [{model: next(each) for model, each in models.items()} for _ in range(TURNS)][SKIPPED:]
        file.parent.mkdir(parents=True, exist_ok=True)
        first = next(iter(models))
        file.write_text(json.dumps({model: median(turn[first] / turn[model] for turn in turns) for model in models}))
    return json.loads(file.read_text())


class CpuLimitHook(TimeLimitHook):
    """Ends a training when it has taken some CPU time; the validation does not count."""

    clock = staticmethod(time.process_time)

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds / 60, validations=1)

    def _estimate(self, runner: Runner, done: int, elapsed: float, seconds: float) -> None:
        last = done + max(0, round((self.budget - elapsed) / seconds))
        self._plan(runner, last, last)


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


def budget(args: argparse.Namespace) -> float:
    """CPU seconds of the first model, which all others get."""
    first = next(iter(MODELS[args.case]))
    key = dict(data=args.data.name, task=args.task, length=str(args.iterations), model=first,
               options=' '.join(args.train_options))
    seconds = [float(row['cpu_seconds']) for row in read_rows() if row | key == row]
    if not seconds:
        raise SystemExit(f'error: train {first} with --iterations {args.iterations} first, it sets the time of all')
    return mean(seconds)


def train(args: argparse.Namespace, model: str, seed: int) -> dict[str, Any]:
    """Train one model for the same CPU time as all, and return its row."""
    hooks: list[Hook] = [clock := Clock()]
    if args.case != 'heads' and model != next(iter(MODELS[args.case])):
        hooks.append(CpuLimitHook(budget(args)))
    iterations = max(1, round(args.iterations * relative_speeds(args)[model]))
    cfg = run_config(args, model, seed)
    cfg.merge_from_dict(args.options)
    set_length(cfg, iterations)
    runner = Runner.from_cfg(cfg)
    runner.register_custom_hooks(hooks)
    runner.train()
    metrics = {name: f'{100 * value if "coco/" in key else value:.1f}' for name, key in METRICS.items()
               if (value := clock.metrics.get(key)) is not None}
    return dict(weights=weights_hash(cfg), iterations=runner.iter, cpu_seconds=round(clock.seconds), **metrics)


def read_rows() -> list[dict[str, str]]:
    """The finished runs."""
    if not CSV.exists():
        return []
    with CSV.open(newline='') as file:
        return list(csv.DictReader(file))


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description='How well models learn in the same CPU time')
    parser.add_argument('case', choices=MODELS)
    parser.add_argument('--data', type=Path, help='what make_shapes or `knet data prepare` wrote')
    parser.add_argument('--task', help='of own data (default: as in data.yml)')
    parser.add_argument('--iterations', type=int, default=1000, help='of the first model')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1])
    parser.add_argument('--only', nargs='+', metavar='MODEL', help='train these')
    parser.add_argument('--options', nargs='+', action=DictAction, default={},
                        help='changes of the config, KEY=VALUE; the first model keeps its iterations')
    parser.add_argument('--train-options', type=shlex.split, default=[], metavar='TEXT',
                        help="further options of `knet train`, for example '--short-side 192 --batch-size 4'")
    parser.add_argument('--peer-rate', type=float, default=PEER_RATE, help='learning rate of other models on own data')
    parser.add_argument('--stage-rate', type=float, help='multiple of the rate for K-Net on semantic heads')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/learning'))
    return parser.parse_args()


def main() -> None:
    """Train what is not trained yet."""
    args = parse_arguments()
    torch.set_num_threads(1)
    args.task = args.task or (DataDescription.read(args.data).task if args.case == 'own' else TASKS[args.case])
    for seed, model in product(args.seeds, args.only or contenders(args)):
        options = ' '.join([*(f'{name}={value}' for name, value in args.options.items()), *args.train_options])
        if args.stage_rate and model.endswith(ON_TOP):
            options = f'{options} stage-rate {args.stage_rate:g}'.strip()
        if args.peer_rate != PEER_RATE and args.case == 'own' and model != next(iter(MODELS['own'])):
            options = f'{options} peer-rate {args.peer_rate:g}'.strip()
        key = dict(zip(KEY, (args.data.name, args.task, str(args.iterations), model, options, str(seed)), strict=True))
        if any(row | key == row for row in read_rows()):
            continue
        row = {**key, **train(args, model, seed)}
        new = not CSV.exists()
        with CSV.open('a', newline='') as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator='\n')
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(row, flush=True)


if __name__ == '__main__':
    main()
