"""Measure the published models and the recipes for docs/models.csv, from which the site makes a page for each model.

    python benchmarks/model_cards.py                # measure what has no row yet
    python benchmarks/model_cards.py --again NAME   # measure these again

An interrupted run continues where it stopped. Times are comparable on an idle machine only.
"""

import argparse
import csv
import time
from pathlib import Path

import torch
from cases.models import build_model, read_config
from torch.utils.flop_counter import FlopCounterMode

from knet_plugin.checkpoint.whole_file import whole_file
from knet_plugin.inference.optimize import raw_outputs

ROOT = Path(__file__).resolve().parents[1]
CSV = ROOT / 'docs/models.csv'
COLUMNS = ('name', 'image', 'parameters', 'multiply-adds', 'seconds', 'threads')
SIZES = {'COCO': (800, 1216), 'ADE20K': (512, 512), 'recipe': (256, 384)}
TURNS = 2


def models() -> dict[str, tuple[int, int]]:
    """Configs by name, with the size of the image."""
    found = {}
    for folder in ('instance', 'panoptic', 'semantic', 'recipe'):
        for path in sorted((ROOT / 'configs' / folder).glob('knet-*.py')):
            if 'shapes' not in path.name:
                kind = 'recipe' if folder == 'recipe' else 'ADE20K' if folder == 'semantic' else 'COCO'
                found[path.stem] = (640, 640) if '640x640' in path.stem else SIZES[kind]
    return found


@torch.no_grad()
def measure(name: str, size: tuple[int, int]) -> dict[str, str]:
    """Parameters, multiply-adds and seconds from a normalised image to logits, with random weights."""
    cfg = read_config(name)
    scope = 'mmseg' if 'decode_head' in cfg.model else 'mmdet'
    model = build_model(cfg, scope, torch.device('cpu')).eval().requires_grad_(False)  # the counter follows gradients
    image = torch.randn(1, 3, *size)
    counter = FlopCounterMode(display=False)
    with counter:
        raw_outputs(model, image)
    times = []
    for _ in range(TURNS):
        start = time.perf_counter()
        raw_outputs(model, image)
        times.append(time.perf_counter() - start)
    return {'name': name, 'image': f'{size[0]} x {size[1]}', 'threads': str(torch.get_num_threads()),
            'parameters': f'{sum(p.numel() for p in model.parameters()) / 1e6:.1f}',
            'multiply-adds': f'{counter.get_total_flops() / 2e9:.1f}', 'seconds': f'{min(times):.2f}'}


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--again', nargs='+', default=[], metavar='NAME')
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = {}
    if CSV.is_file():
        with CSV.open(newline='') as file:
            rows = {row['name']: row for row in csv.DictReader(file)}
    for name, size in models().items():
        if name in rows and name not in args.again:
            continue
        rows[name] = measure(name, size)
        print(rows[name], flush=True)
        with whole_file(CSV) as draft, draft.open('w', newline='') as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator='\n')
            writer.writeheader()
            writer.writerows(rows[key] for key in models() if key in rows)


if __name__ == '__main__':
    main()
