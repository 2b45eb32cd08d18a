"""Train small segmentors of several kinds on Shapes, without and with K-Net, and write what K-Net gains.

    python tools/make_shapes.py data/shapes
    python benchmarks/compare_heads.py                    # or, on two cores: --shard 0/2 and --shard 1/2 at once

Every run is one row of docs/shapes_heads.csv. What is there is not run again, and a run that was interrupted goes on
from its last checkpoint, so hours of training can be had in pieces. Plot and table are written from the rows.
"""

import argparse
import copy
import csv
import os
from collections.abc import Iterable
from contextlib import suppress
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib
import torch
from marked_page import replace_between
from mmengine.config import Config
from mmengine.runner import Runner

from knet_plugin import attach
from knet_plugin.cli import resolve_config

ROOT = Path(__file__).resolve().parents[1]
CSV, PLOT, PAGE = ROOT / 'docs/shapes_heads.csv', ROOT / 'docs/shapes_heads.png', ROOT / 'docs/decode_heads.md'
COLUMNS = ('algorithm', 'generation', 'model', 'seed', 'iterations', 'miou')
BEGIN, END = '<!-- table: written by benchmarks/compare_heads.py -->', '<!-- end of the gains -->'
BASE = 'fcn_r18-s_1xb8-adamw-1k_shapes-128x128'

_BN, _LN = dict(type='BN', requires_grad=True), dict(type='LN')
_COMMON = dict(num_classes=10, align_corners=False, dropout_ratio=0.)
# On the small ResNet of the base config, whose stages have 32 and 64 channels at strides 4 and 8.
_RESNET = dict(in_channels=64, in_index=1, channels=64, norm_cfg=_BN, **_COMMON)
_LEVELS = dict(in_channels=[32, 64], in_index=[0, 1], norm_cfg=_BN, **_COMMON)
_VIT = dict(type='VisionTransformer', img_size=(128, 128), patch_size=8, embed_dims=96, num_layers=4, num_heads=3,
            mlp_ratio=2, out_indices=3, with_cls_token=True, interpolate_mode='bilinear', final_norm=True)
_MIT = dict(type='MixVisionTransformer', embed_dims=16, num_stages=4, num_layers=[1, 1, 1, 1], num_heads=[1, 2, 4, 8],
            patch_sizes=[7, 3, 3, 3], sr_ratios=[8, 4, 2, 1], out_indices=(0, 1, 2, 3), mlp_ratio=4, qkv_bias=True)

# Generation -> algorithm -> its decode head, and its backbone where that is no ResNet.
ALGORITHMS: dict[str, dict[str, tuple[dict[str, Any], dict[str, Any] | None]]] = {
    'CNN': {
        'FCN': (dict(_RESNET, type='FCNHead', num_convs=1, concat_input=False), None),
        'PSPNet': (dict(_RESNET, type='PSPHead', pool_scales=(1, 2, 3, 6)), None),
        'UPerNet': (dict(_LEVELS, type='UPerHead', channels=64, pool_scales=(1, 2, 3, 6)), None),
        'DeepLabV3+': (dict(_RESNET, type='DepthwiseSeparableASPPHead', dilations=(1, 2, 4), c1_in_channels=32,
                            c1_channels=16), None),
    },
    'attention': {
        'Non-local': (dict(_RESNET, type='NLHead', reduction=2, use_scale=True, mode='embedded_gaussian'), None),
        'GCNet': (dict(_RESNET, type='GCHead', ratio=1 / 4., pooling_type='att', fusion_types=('channel_add', )), None),
        'EncNet': (dict(_LEVELS, type='EncHead', channels=64, num_codes=16, add_lateral=False), None),
    },
    'transformer': {
        'SETR naive': (dict(type='SETRUPHead', in_channels=96, in_index=0, channels=64, num_convs=1, up_scale=2,
                            kernel_size=1, norm_cfg=_BN, **_COMMON), _VIT),
        'Segmenter': (dict(type='SegmenterMaskTransformerHead', in_channels=96, in_index=0, channels=96, embed_dims=96,
                           num_layers=2, num_heads=3, **_COMMON), _VIT),
        'SegFormer': (dict(type='SegformerHead', in_channels=[16, 32, 64, 128], in_index=[0, 1, 2, 3], channels=64,
                           norm_cfg=_BN, **_COMMON), _MIT),
    },
}


def run_config(algorithm: str, with_knet: bool, seed: int, args: argparse.Namespace) -> Config:
    """The base config with another head, all else equal."""
    head, backbone = next(group[algorithm] for group in ALGORITHMS.values() if algorithm in group)
    cfg = Config.fromfile(resolve_config(BASE))
    loss = cfg.model.decode_head.loss_decode
    cfg.model.decode_head = copy.deepcopy(dict(head, loss_decode=loss))
    if backbone:
        cfg.model.backbone = copy.deepcopy(backbone)
    if with_knet:
        cfg = attach(cfg, kernel_update_head=dict(interaction=dict(feedforward_channels=256)))
        # As in the small detectors: at the full rate, stages that start anew hold the classifier back for long.
        cfg.optim_wrapper.paramwise_cfg = dict(custom_keys=dict(kernel_update_head=dict(lr_mult=0.2)))
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(args.data_root)
        loader.update(num_workers=1)
    # Not in the loop: a run that was interrupted while it was tested would have nothing left to do.
    cfg.train_cfg.update(max_iters=args.iterations, val_interval=args.iterations + 1)
    warmup, decay = cfg.param_scheduler
    warmup.end = decay.begin = args.iterations // 10
    decay.end = args.iterations
    cfg.default_hooks.checkpoint.update(interval=max(args.iterations // 4, 1), max_keep_ckpts=1)
    cfg.randomness = dict(seed=seed)
    cfg.work_dir = str(args.work_dir / f'{algorithm}_{"knet" if with_knet else "plain"}_{seed}_{args.iterations}')
    cfg.log_level = 'ERROR'
    cfg.resume = True
    return cfg


def read_rows() -> list[dict[str, str]]:
    """The runs that are finished."""
    if not CSV.exists():
        return []
    with CSV.open(newline='') as file:
        return list(csv.DictReader(file))


def add_row(row: dict[str, Any]) -> None:
    """Append a row; shards may do so at the same time, also when there is no file yet."""
    if not CSV.exists():
        draft = CSV.with_suffix(f'.{os.getpid()}.tmp')
        with draft.open('w', newline='') as file:
            csv.DictWriter(file, COLUMNS).writeheader()
        with suppress(FileExistsError):  # then another shard was first
            os.link(draft, CSV)
        draft.unlink()
    with CSV.open('a', newline='') as file:
        csv.DictWriter(file, COLUMNS).writerow(row)


def train(algorithm: str, generation: str, with_knet: bool, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """One run; its mIoU after the last iteration."""
    runner = Runner.from_cfg(run_config(algorithm, with_knet, seed, args))
    runner.train()
    miou = runner.val()['mIoU']
    return dict(algorithm=algorithm, generation=generation, model='knet' if with_knet else 'plain', seed=seed,
                iterations=args.iterations, miou=f'{miou:.2f}')


def gains(rows: Iterable[dict[str, str]]) -> dict[tuple[str, int], dict[str, list[float]]]:
    """mIoU by algorithm and iterations, and by model, of the seeds that both models have, in the order of the seeds."""
    found: dict[tuple[str, int], dict[str, dict[str, float]]] = {}
    for row in rows:
        models = found.setdefault((row['algorithm'], int(row['iterations'])), {})
        models.setdefault(row['model'], {})[row['seed']] = float(row['miou'])
    result = {}
    for algorithm in (algorithm for algorithms in ALGORITHMS.values() for algorithm in algorithms):
        for key in sorted(key for key in found if key[0] == algorithm):
            models = found[key]
            seeds = sorted(models.get('plain', {}).keys() & models.get('knet', {}).keys())
            if seeds:
                result[key] = {model: [models[model][seed] for seed in seeds] for model in ('plain', 'knet')}
    return result


def table(figures: dict[tuple[str, int], dict[str, list[float]]]) -> str:
    """The gains as Markdown."""
    generations = {algorithm: generation for generation, algorithms in ALGORITHMS.items() for algorithm in algorithms}
    lines = ['mIoU on Shapes, by seed:', '', '| generation | algorithm | iterations | plain | with K-Net | mean gain |',
             '|---|---|---|---|---|---|']
    for (algorithm, iterations), models in figures.items():
        plain, knet = (', '.join(f'{value:.2f}' for value in models[model]) for model in ('plain', 'knet'))
        lines.append(f'| {generations[algorithm]} | {algorithm} | {iterations:,} | {plain} | {knet} | '
                     f'{mean(models["knet"]) - mean(models["plain"]):+.2f} |')
    return '\n'.join(lines)


def plot(figures: dict[tuple[str, int], dict[str, list[float]]]) -> None:
    """Two bars for each algorithm and number of iterations, and a dot for each seed."""
    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(0.9 * len(figures) + 2, 4))
    for offset, (model, colour) in enumerate((('plain', '0.7'), ('knet', '#2a6fbb'))):
        positions = [i + 0.4 * (offset - 0.5) for i in range(len(figures))]
        label = 'with K-Net' if model == 'knet' else 'plain'
        axes.bar(positions, [mean(models[model]) for models in figures.values()], 0.38, color=colour, label=label)
        for position, models in zip(positions, figures.values(), strict=True):
            axes.plot([position] * len(models[model]), models[model], 'k.', markersize=4)
    axes.set_xticks(range(len(figures)), [f'{name}\n{iterations:,}' for name, iterations in figures], fontsize=8)
    axes.set_ylabel('mIoU')
    axes.set_title('Shapes, after so many iterations; dots are seeds')
    axes.legend()
    figure.tight_layout()
    figure.savefig(PLOT, dpi=110)


def shard(text: str) -> tuple[int, int]:
    """``I/N`` as two numbers."""
    index, _, count = text.partition('/')
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f'must be I/N with I from 0 to N - 1, got {text!r}')
    return int(index), int(count)


def main() -> None:
    """Train what is not trained yet, then write table and plot."""
    parser = argparse.ArgumentParser(description='What K-Net gains on several kinds of decode heads')
    parser.add_argument('--data-root', type=Path, default=Path('data/shapes'), help='what make_shapes.py made')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/compare_heads'))
    parser.add_argument('--iterations', type=int, default=600)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1])
    parser.add_argument('--only', nargs='+', metavar='ALGORITHM', help='train these',
                        choices=[algorithm for algorithms in ALGORITHMS.values() for algorithm in algorithms])
    parser.add_argument('--shard', type=shard, default='0/1',
                        help='I/N: every Nth pair of runs, beginning with the Ith')
    args = parser.parse_args()
    index, shards = args.shard
    torch.set_num_threads(1)
    pairs = [(algorithm, generation, seed) for seed in args.seeds for generation, algorithms in ALGORITHMS.items()
             for algorithm in algorithms if not args.only or algorithm in args.only]
    for (algorithm, generation, seed), with_knet in product(pairs[index::shards], (False, True)):
        key = (algorithm, 'knet' if with_knet else 'plain', str(seed), str(args.iterations))
        if any(key == tuple(row[name] for name in ('algorithm', 'model', 'seed', 'iterations')) for row in read_rows()):
            continue
        row = train(algorithm, generation, with_knet, seed, args)
        add_row(row)
        print(row, flush=True)
    figures = gains(read_rows())
    if figures:
        plot(figures)
        text = table(figures)
        print(text)
        replace_between(PAGE, BEGIN, END, text)


if __name__ == '__main__':
    main()
