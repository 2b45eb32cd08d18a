"""Try K-Net on every kind of decode head, with mmseg's stock configs, and write the table of docs/decode_heads.md.

    python benchmarks/decode_heads.py --configs            # write configs/semantic/attached/
    python benchmarks/decode_heads.py                      # measure what has no row yet, and write the table
    python benchmarks/decode_heads.py --again FCN PSPNet   # measure these again
    python benchmarks/decode_heads.py --export             # export what has not been tried yet, and write the table

docs/decode_heads.csv has one row for each algorithm and distribution of the host packages, so run it in
both environments. An interrupted run continues where it stopped. Times are only comparable on an idle machine.
"""

import argparse
import csv
import gc
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from marked_page import replace_between
from mmengine.config import Config

from knet_plugin.checkpoint.whole_file import whole_file
from knet_plugin.compat import installed_distribution
from knet_plugin.migration import load_source
from knet_plugin.semantic.attach import attach, attached_text

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / 'tools'))
from attach import build_segmentor, measure, shortest_seconds, train_step  # noqa: E402

ATTACHED = ROOT / 'configs/semantic/attached'
CSV, PAGE = ROOT / 'docs/decode_heads.csv', ROOT / 'docs/decode_heads.md'
HEADER = '| algorithm | config | image | parameters (M) | G multiply-adds | seconds an image | works with | ONNX |'
COLUMNS = ('algorithm', 'distribution', 'size', 'parameters', 'parameters_with', 'flops', 'flops_with', 'seconds',
           'seconds_with', 'works', 'turns', 'exports')
TURNS = 3
BEGIN, END = '<!-- table: written by benchmarks/decode_heads.py -->', '<!-- end of the table -->'

Row = dict[str, str]


@dataclass(frozen=True)
class Algorithm:
    """A stock config, and the changes that it needs for a small image on a CPU."""

    name: str
    stock: str
    size: tuple[int, int] = (256, 256)
    changes: tuple[tuple[str, str], ...] = ()  # options set to the image's `size`, or to that of features of `stride 8`
    needs: str | None = None  # a package that the stock config needs and our requirements do not install

    @property
    def attached(self) -> Path:
        """Our config of it."""
        return ATTACHED / f'knet-s3_{Path(self.stock).name}.py'

    def config(self, size: tuple[int, int] | None = None) -> Config:
        """The stock config, changed for images of ``size``; unless given, of the algorithm's own size."""
        cfg = load_source(f'mmseg::{self.stock}.py')
        height, width = size or self.size
        values = {'size': (height, width), 'stride 8': ((height + 7) // 8, (width + 7) // 8)}
        cfg.merge_from_dict({key: values[value] for key, value in self.changes})
        return cfg


_IMAGE_SIZE = (('model.backbone.img_size', 'size'), )

GENERATIONS = {
    'CNN': (
        Algorithm('FCN', 'fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512'),
        Algorithm('PSPNet', 'pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512'),
        Algorithm('DeepLabV3', 'deeplabv3/deeplabv3_r50-d8_4xb4-80k_ade20k-512x512'),
        Algorithm('Semantic FPN', 'sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512'),
        Algorithm('UPerNet', 'upernet/upernet_r50_4xb4-80k_ade20k-512x512'),
        Algorithm('DeepLabV3+', 'deeplabv3plus/deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512'),
        Algorithm('Fast-SCNN', 'fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024'),
        Algorithm('PointRend', 'point_rend/pointrend_r50_4xb4-160k_ade20k-512x512'),
    ),
    'attention': (
        Algorithm('Non-local', 'nonlocal_net/nonlocal_r50-d8_4xb4-80k_ade20k-512x512'),
        # Its attention has one weight for each pair of positions, so the size of the map is fixed.
        Algorithm('PSANet', 'psanet/psanet_r50-d8_4xb4-80k_ade20k-512x512',
                  changes=(('model.decode_head.mask_size', 'stride 8'), )),
        Algorithm('CCNet', 'ccnet/ccnet_r50-d8_4xb4-80k_ade20k-512x512'),
        Algorithm('DANet', 'danet/danet_r50-d8_4xb4-80k_ade20k-512x512'),
        Algorithm('EncNet', 'encnet/encnet_r50-d8_4xb4-80k_ade20k-512x512'),
        Algorithm('EMANet', 'emanet/emanet_r50-d8_4xb2-80k_cityscapes-512x1024'),
        Algorithm('ANN', 'ann/ann_r50-d8_4xb4-80k_ade20k-512x512'),
        Algorithm('GCNet', 'gcnet/gcnet_r50-d8_4xb4-80k_ade20k-512x512'),
        Algorithm('OCRNet', 'ocrnet/ocrnet_hr18_4xb4-80k_ade20k-512x512'),
        Algorithm('APCNet', 'apcnet/apcnet_r50-d8_4xb4-80k_ade20k-512x512'),
        Algorithm('DMNet', 'dmnet/dmnet_r50-d8_4xb4-80k_ade20k-512x512'),
        # It pools windows of 49 x 49 at stride 8.
        Algorithm('LR-ASPP', 'mobilenet_v3/mobilenet-v3-d8_lraspp_4xb4-320k_cityscapes-512x1024', (400, 400)),
        Algorithm('ISANet', 'isanet/isanet_r50-d8_4xb4-80k_ade20k-512x512'),
        Algorithm('DNLNet', 'dnlnet/dnl_r50-d8_4xb4-80k_ade20k-512x512'),
        Algorithm('BiSeNetV1', 'bisenetv1/bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024'),
        Algorithm('BiSeNetV2', 'bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024'),
        Algorithm('STDC', 'stdc/stdc1_4xb12-80k_cityscapes-512x1024'),
    ),
    'transformer': (
        Algorithm('SETR naive', 'setr/setr_vit-l_naive_8xb2-160k_ade20k-512x512'),
        Algorithm('SETR PUP', 'setr/setr_vit-l_pup_8xb2-160k_ade20k-512x512', (128, 128)),
        Algorithm('SETR MLA', 'setr/setr_vit-l_mla_8xb2-160k_ade20k-512x512'),
        Algorithm('DPT', 'dpt/dpt_vit-b16_8xb2-160k_ade20k-512x512'),
        Algorithm('Segmenter', 'segmenter/segmenter_vit-s_mask_8xb1-160k_ade20k-512x512'),
        Algorithm('SegFormer', 'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512'),
        Algorithm('K-Net on K-Net', 'knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512'),
    ),
    'also in mmseg': (
        Algorithm('SegNeXt', 'segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512'),
        Algorithm('PIDNet', 'pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes'),
        Algorithm('DDRNet', 'ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024'),
        Algorithm('ICNet', 'icnet/icnet_r18-d8_4xb2-80k_cityscapes-832x832'),
        Algorithm('CGNet', 'cgnet/cgnet_fcn_4xb8-60k_cityscapes-512x1024'),
        Algorithm('ERFNet', 'erfnet/erfnet_fcn_4xb4-160k_cityscapes-512x1024'),
        Algorithm('UNet', 'unet/unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024', (128, 128)),
        Algorithm('HRNet', 'hrnet/fcn_hr18_4xb4-80k_ade20k-512x512'),
        Algorithm('Swin UPerNet', 'swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512'),
        Algorithm('ConvNeXt UPerNet', 'convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512',
                  needs='mmpretrain'),
        Algorithm('BEiT UPerNet', 'beit/beit-base_upernet_8xb2-160k_ade20k-640x640', changes=_IMAGE_SIZE),
        Algorithm('MAE UPerNet', 'mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512', changes=_IMAGE_SIZE),
    ),
}


def try_algorithm(algorithm: Algorithm) -> Row:
    """Train a step and predict, without and with K-Net.

    Returns:
        A row of the CSV file; if something failed, without figures, and with the error as ``works``.
    """
    row = dict(algorithm=algorithm.name, distribution=installed_distribution(),
               size=f'{algorithm.size[0]} x {algorithm.size[1]}')
    if algorithm.needs and not find_spec(algorithm.needs):
        return dict(row, works=f'needs {algorithm.needs}')
    try:
        stock = algorithm.config()
        models, costs = [], []
        for cfg in (stock, attach(stock)):
            models.append(build_segmentor(cfg, algorithm.size))
            train_step(models[-1], algorithm.size)
            costs.append(measure(models[-1], algorithm.size))
            models[-1].zero_grad(set_to_none=True)
        times = shortest_seconds(models, algorithm.size, TURNS)
        for end, cost, seconds in zip(('', '_with'), costs, times, strict=True):
            row |= {f'parameters{end}': f'{cost.parameters / 1e6:.2f}', f'flops{end}': f'{cost.flops / 1e9:.2f}',
                    f'seconds{end}': f'{seconds:.3f}'}
        return dict(row, works='yes', turns=str(TURNS))
    except Exception as error:  # the table lists what a host cannot do
        return dict(row, works=first_line(error))


def try_export(algorithm: Algorithm) -> str:
    """Export with K-Net and random weights to ONNX, with logits.

    Returns:
        For which sizes that works, and how far the logits deviate from torch's; or why it does not.
    """
    from knet_plugin import Predictor
    from knet_plugin.export import export_model

    cfg = attach(algorithm.config())
    cfg.model.test_cfg = dict(cfg.model.get('test_cfg') or {}, mode='whole')
    error = ''
    with tempfile.TemporaryDirectory() as folder:
        torch.save(dict(state_dict=build_segmentor(cfg, algorithm.size).state_dict()), f'{folder}/random.pth')
        cfg.dump(f'{folder}/config.py')
        for sizes, options in (('any size', dict(dynamic=True)), ('one size', dict(size=algorithm.size))):
            try:
                predictor = Predictor(folder, device='cpu')
                found = export_model(predictor, f'{folder}/model.onnx', logits=True, **options)
                return f'{sizes}, {found["seg_logits"]:.0e}'
            except Exception as failure:  # the table lists what cannot be exported
                error = first_line(failure)
    return f'no: {error}'


def first_line(error: Exception) -> str:
    """An error as the table shows it."""
    return f'{type(error).__name__}: {error}'.splitlines()[0][:200].replace('|', '/')


def read_rows() -> list[Row]:
    """The rows that have been measured."""
    with CSV.open(newline='') as file:
        return list(csv.DictReader(file))


def write_rows(rows: Iterable[Row]) -> None:
    """Write all rows."""
    with whole_file(CSV) as draft, draft.open('w', newline='') as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown, a table for each generation."""
    lines = []
    for generation, algorithms in GENERATIONS.items():
        lines += [f'### {generation}', '', HEADER, '|---|---|---|---|---|---|---|---|']
        for algorithm in algorithms:
            found = [row for row in rows if row['algorithm'] == algorithm.name]
            if found:
                lines.append(table_line(algorithm, sorted(found, key=lambda row: row['distribution'])))
        lines.append('')
    return '\n'.join(lines)


def table_line(algorithm: Algorithm, found: Sequence[Row]) -> str:
    """A row of the table: the figures of the first distribution with which the algorithm works."""
    row = next((row for row in found if row['works'] == 'yes'), found[0])
    works = ', '.join(each['distribution'] if each['works'] == 'yes' else f'{each["distribution"]}: {each["works"]}'
                      for each in found)
    pairs = [f'{row[name]} -> {row[f"{name}_with"]}' if row.get(name) else '-'
             for name in ('parameters', 'flops', 'seconds')]
    config = f'[`{algorithm.attached.name}`](../configs/semantic/attached/{algorithm.attached.name})'
    exports = next((each['exports'] for each in found if each.get('exports')), '-')
    return f'| {algorithm.name} | {config} | {row["size"]} | {" | ".join(pairs)} | {works} | {exports} |'


def write_configs(algorithms: Iterable[Algorithm]) -> None:
    """Write our config of each algorithm."""
    ATTACHED.mkdir(exist_ok=True)
    for algorithm in algorithms:
        base = f'mmseg::{algorithm.stock}.py'
        text = attached_text(base, load_source(base), plugin='../../_base_/plugin.py')
        algorithm.attached.write_text(f'# {algorithm.name}, with K-Net.\n{text}')


def main() -> None:
    """Write the configs, or measure."""
    algorithms = {algorithm.name: algorithm for generation in GENERATIONS.values() for algorithm in generation}
    parser = argparse.ArgumentParser(description='Try K-Net on every kind of decode head')
    parser.add_argument('--configs', action='store_true', help='only write configs/semantic/attached/')
    parser.add_argument('--again', nargs='*', default=[], metavar='ALGORITHM', choices=[*algorithms],
                        help='measure these again')
    parser.add_argument('--export', action='store_true', help='try to export what works, instead of measuring')
    args = parser.parse_args()
    if args.configs:
        write_configs(algorithms.values())
        return
    torch.set_num_threads(1)
    rows = {(row['algorithm'], row['distribution']): row for row in read_rows()}
    for name, algorithm in algorithms.items():
        key = name, installed_distribution()
        if args.export:
            if rows.get(key, {}).get('works') == 'yes' and (not rows[key].get('exports') or name in args.again):
                rows[key]['exports'] = try_export(algorithm)
                gc.collect()
                write_rows(rows.values())
                print(name, rows[key]['exports'], flush=True)
        elif name in args.again or key not in rows or rows[key]['works'] != 'yes':
            rows[key] = dict(try_algorithm(algorithm), exports=rows.get(key, {}).get('exports', ''))
            gc.collect()
            write_rows(rows.values())
            print(rows[key], flush=True)
    replace_between(PAGE, BEGIN, END, table([*rows.values()]))


if __name__ == '__main__':
    main()
