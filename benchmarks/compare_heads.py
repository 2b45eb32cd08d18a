"""Train small segmentors of several kinds on Shapes, without and with K-Net, and write what K-Net gains.

    python tools/make_shapes.py data/shapes
    python benchmarks/compare_heads.py --only FCN PSPNet

Every run is a row of docs/shapes_heads.csv. A run that has its row is not repeated, and an interrupted run continues
from its last checkpoint. The table of docs/decode_heads.md is written from the rows.
"""

import argparse
import copy
import csv
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from marked_page import replace_between
from mmengine.config import Config
from mmengine.runner import Runner

from knet_plugin import attach
from knet_plugin.cli import resolve_config

ROOT = Path(__file__).resolve().parents[1]
CSV, PAGE = ROOT / 'docs/shapes_heads.csv', ROOT / 'docs/decode_heads.md'
COLUMNS = ('algorithm', 'generation', 'model', 'seed', 'iterations', 'miou')
BEGIN, END = '<!-- table: written by benchmarks/compare_heads.py -->', '<!-- end of the gains -->'
BASE = 'fcn_r18-s_1xb8-adamw-1k_shapes-128x128'

_BN = dict(type='BN', requires_grad=True)
_COMMON = dict(num_classes=10, align_corners=False, dropout_ratio=0.)
# For the small ResNet of the base config, which has 32 and 64 channels at strides 4 and 8.
_RESNET = dict(in_channels=64, in_index=1, channels=64, norm_cfg=_BN, **_COMMON)
_LEVELS = dict(in_channels=[32, 64], in_index=[0, 1], norm_cfg=_BN, **_COMMON)
_VIT = dict(type='VisionTransformer', img_size=(128, 128), patch_size=8, embed_dims=96, num_layers=4, num_heads=3,
            mlp_ratio=2, out_indices=3, with_cls_token=True, interpolate_mode='bilinear', final_norm=True)
_MIT = dict(type='MixVisionTransformer', embed_dims=16, num_stages=4, num_layers=[1, 1, 1, 1], num_heads=[1, 2, 4, 8],
            patch_sizes=[7, 3, 3, 3], sr_ratios=[8, 4, 2, 1], out_indices=(0, 1, 2, 3), mlp_ratio=4, qkv_bias=True)

# Generation -> algorithm -> its decode head, and its backbone if that is not the ResNet.
ALGORITHMS: dict[str, dict[str, tuple[dict[str, Any], dict[str, Any] | None]]] = {
    'CNN': {
        'FCN': (dict(_RESNET, type='FCNHead', num_convs=1, concat_input=False), None),
        'PSPNet': (dict(_RESNET, type='PSPHead', pool_scales=(1, 2, 3, 6)), None),
        'DeepLabV3+': (dict(_RESNET, type='DepthwiseSeparableASPPHead', dilations=(1, 2, 4), c1_in_channels=32,
                            c1_channels=16), None),
    },
    'attention': {
        'Non-local': (dict(_RESNET, type='NLHead', reduction=2, use_scale=True, mode='embedded_gaussian'), None),
        'GCNet': (dict(_RESNET, type='GCHead', ratio=1 / 4., pooling_type='att', fusion_types=('channel_add', )), None),
        'EncNet': (dict(_LEVELS, type='EncHead', channels=64, num_codes=16, add_lateral=False), None),
    },
    'transformer': {
        'Segmenter': (dict(type='SegmenterMaskTransformerHead', in_channels=96, in_index=0, channels=96, embed_dims=96,
                           num_layers=2, num_heads=3, **_COMMON), _VIT),
        'SegFormer': (dict(type='SegformerHead', in_channels=[16, 32, 64, 128], in_index=[0, 1, 2, 3], channels=64,
                           norm_cfg=_BN, **_COMMON), _MIT),
    },
}


def run_config(algorithm: str, with_knet: bool, args: argparse.Namespace, seed: int) -> Config:
    """The base config with another head; everything else is equal."""
    head, backbone = next(group[algorithm] for group in ALGORITHMS.values() if algorithm in group)
    cfg = Config.fromfile(resolve_config(BASE))
    cfg.model.decode_head = copy.deepcopy(dict(head, loss_decode=cfg.model.decode_head.loss_decode))
    if backbone:
        cfg.model.backbone = copy.deepcopy(backbone)
    if with_knet:
        cfg = attach(cfg, kernel_update_head=dict(interaction=dict(feedforward_channels=256)))
        # As in the small detectors: at the full rate, the new stages hold the classifier back for long.
        cfg.optim_wrapper.paramwise_cfg = dict(custom_keys=dict(kernel_update_head=dict(lr_mult=0.2)))
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(args.data_root)
        loader.update(num_workers=1)
    # No validation in the loop: if it were interrupted, the resumed run would not repeat it.
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
    """The finished runs."""
    with CSV.open(newline='') as file:
        return list(csv.DictReader(file))


def table(rows: Iterable[dict[str, str]]) -> str:
    """mIoU of the seeds that both models have, and the gains, as Markdown."""
    found = {tuple(row[name] for name in COLUMNS[:-1]): float(row['miou']) for row in rows}
    lines = ['mIoU on Shapes, by seed:', '', '| generation | algorithm | iterations | plain | with K-Net | mean gain |',
             '|---' * 6 + '|']
    known = [(algorithm, generation) for generation, algorithms in ALGORITHMS.items() for algorithm in algorithms]
    for algorithm, generation in known:
        for iterations in sorted({key[4] for key in found if key[0] == algorithm}, key=int):
            seeds = sorted(key[3] for key in found if key == (algorithm, generation, 'knet', key[3], iterations))
            plain, knet = ([found[algorithm, generation, model, seed, iterations] for seed in seeds]
                           for model in ('plain', 'knet'))
            texts = (', '.join(f'{value:.2f}' for value in values) for values in (plain, knet))
            lines.append(f'| {generation} | {algorithm} | {int(iterations):,} | {" | ".join(texts)} | '
                         f'{mean(knet) - mean(plain):+.2f} |')
    return '\n'.join(lines)


def main() -> None:
    """Train what is not trained yet, then write the table."""
    known = [(generation, algorithm) for generation, algorithms in ALGORITHMS.items() for algorithm in algorithms]
    parser = argparse.ArgumentParser(description='What K-Net gains on several kinds of decode heads')
    parser.add_argument('--data-root', type=Path, default=Path('data/shapes'), help='what make_shapes.py made')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/compare_heads'))
    parser.add_argument('--iterations', type=int, default=600)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1])
    parser.add_argument('--only', nargs='+', metavar='ALGORITHM', help='train these',
                        choices=[algorithm for _, algorithm in known])
    args = parser.parse_args()
    torch.set_num_threads(1)
    for seed, (generation, algorithm), model in product(args.seeds, known, ('plain', 'knet')):
        key = (algorithm, generation, model, str(seed), str(args.iterations))
        if args.only and algorithm not in args.only or key in (tuple(row.values())[:5] for row in read_rows()):
            continue
        runner = Runner.from_cfg(run_config(algorithm, model == 'knet', args, seed))
        runner.train()
        row = dict(zip(COLUMNS, (*key, f'{runner.val()["mIoU"]:.2f}'), strict=True))
        with CSV.open('a', newline='') as file:
            csv.DictWriter(file, COLUMNS).writerow(row)
        print(row, flush=True)
    replace_between(PAGE, BEGIN, END, table(read_rows()))


if __name__ == '__main__':
    main()
