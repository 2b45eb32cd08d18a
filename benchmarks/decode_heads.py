"""Try K-Net on every kind of decode head, with mmseg's stock configs, and write the table of docs/decode_heads.md.

    python benchmarks/decode_heads.py --configs            # write configs/semantic/attached/
    python benchmarks/decode_heads.py                      # measure what is not measured yet, and write the table
    python benchmarks/decode_heads.py --seconds            # only the times of what was not timed in turns yet

Every algorithm is one row of docs/decode_heads.csv, per family of host packages; a run that was interrupted goes on
where it was. Run it in the environments of both. For times that can be compared, the machine must have a core to spare.
"""

import argparse
import csv
import gc
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path

import torch
from marked_page import replace_between
from mmengine.config import Config
from mmseg.models.segmentors import BaseSegmentor

from knet_plugin.compat import installed_distribution
from knet_plugin.migration import load_source
from knet_plugin.semantic.attach import attach, attached_text
from knet_plugin.semantic.smoke_test import build_segmentor, measure, shortest_seconds, train_step

ROOT = Path(__file__).resolve().parents[1]
ATTACHED = ROOT / 'configs/semantic/attached'
CSV, PAGE = ROOT / 'docs/decode_heads.csv', ROOT / 'docs/decode_heads.md'
HEADER = '| algorithm | config | image | parameters (M) | G multiply-adds | seconds an image | works with |'
TURNS = 3
BEGIN, END = '<!-- table: written by benchmarks/decode_heads.py -->', '<!-- end of the table -->'


@dataclass(frozen=True)
class Algorithm:
    """A stock config, and what is changed in it to run it on a small image on a CPU."""

    name: str
    stock: str
    size: tuple[int, int] = (256, 256)
    changes: tuple[tuple[str, str], ...] = ()
    """Options that follow the size of the image: to ``size`` itself, or to that of its features, ``stride 8``."""
    needs: str | None = None
    """A package that the stock config needs and the requirements do not have."""

    @property
    def attached(self) -> Path:
        """Our config of it."""
        return ATTACHED / f'knet-s3_{Path(self.stock).name}.py'

    def config(self, size: tuple[int, int] | None = None) -> Config:
        """The stock config, changed for images of a size."""
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
        # Its attention has one weight for each pair of positions of a map of fixed size.
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


@dataclass
class Row:
    """What one algorithm costs without and with K-Net, in one family of host packages."""

    algorithm: str
    family: str
    size: str
    parameters: str
    parameters_with: str
    flops: str
    flops_with: str
    seconds: str
    seconds_with: str
    works: str
    """``yes``, or the error."""
    turns: str = ''
    """How often the model without and the one with K-Net were timed in turns; the shortest times are kept."""


def try_algorithm(algorithm: Algorithm) -> Row:
    """Train a step and predict, without and with K-Net."""
    row = Row(algorithm.name, installed_distribution(), f'{algorithm.size[0]} x {algorithm.size[1]}', *[''] * 6, works='yes')
    if algorithm.needs and not find_spec(algorithm.needs):
        return replace(row, works=f'needs {algorithm.needs}')
    try:
        stock = algorithm.config()
        models, costs = [], []
        for cfg in (stock, attach(stock)):
            models.append(build_segmentor(cfg, algorithm.size))
            train_step(models[-1], algorithm.size)
            costs.append(measure(models[-1], algorithm.size))
            models[-1].zero_grad(set_to_none=True)
        parameters, flops = ([f'{value:.2f}' for value in values] for values in (
            [cost.parameters / 1e6 for cost in costs], [cost.flops / 1e9 for cost in costs]))
        row = replace(row, parameters=parameters[0], parameters_with=parameters[1], flops=flops[0], flops_with=flops[1])
        return timed(row, models, algorithm.size)
    except Exception as error:  # whatever a host does wrong belongs in the table
        return replace(row, works=f'{type(error).__name__}: {error}'.splitlines()[0][:200].replace('|', '/'))


def time_algorithm(algorithm: Algorithm, row: Row) -> Row:
    """Only predict, without and with K-Net in turns; the rest of the row stays."""
    stock = algorithm.config()
    return timed(row, [build_segmentor(cfg, algorithm.size) for cfg in (stock, attach(stock))], algorithm.size)


def timed(row: Row, models: Sequence[BaseSegmentor], size: tuple[int, int]) -> Row:
    """A row with the times of its two models."""
    seconds = [f'{value:.3f}' for value in shortest_seconds(models, size, TURNS)]
    return replace(row, seconds=seconds[0], seconds_with=seconds[1], turns=str(TURNS))


def read_rows() -> list[Row]:
    """What is measured already."""
    if not CSV.exists():
        return []
    with CSV.open(newline='') as file:
        return [Row(**row) for row in csv.DictReader(file)]


def write_rows(rows: list[Row]) -> None:
    """Write all rows; the file is whole at any time."""
    draft = CSV.with_suffix('.tmp')
    with draft.open('w', newline='') as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    draft.replace(CSV)


def table(rows: list[Row]) -> str:
    """The rows as Markdown, a table for each generation."""
    families = sorted({row.family for row in rows})
    lines = []
    for generation, algorithms in GENERATIONS.items():
        lines += [f'### {generation}', '', HEADER, '|---|---|---|---|---|---|---|']
        for algorithm in algorithms:
            found = {row.family: row for row in rows if row.algorithm == algorithm.name}
            if not found:
                continue
            row = next((row for row in found.values() if row.works == 'yes'), next(iter(found.values())))
            works = ', '.join(f'{family}' if found[family].works == 'yes' else f'{family}: {found[family].works}'
                              for family in families if family in found)
            pairs = [f'{before} -> {after}' if before and after else before or '-' for before, after in (
                (row.parameters, row.parameters_with), (row.flops, row.flops_with), (row.seconds, row.seconds_with))]
            lines.append(f'| {algorithm.name} | [`{algorithm.attached.name}`](../configs/semantic/attached/'
                         f'{algorithm.attached.name}) | {row.size} | ' + ' | '.join(pairs) + f' | {works} |')
        lines.append('')
    return '\n'.join(lines)


def main() -> None:
    """Write the configs, or measure."""
    algorithms = {algorithm.name: algorithm for generation in GENERATIONS.values() for algorithm in generation}
    parser = argparse.ArgumentParser(description='Try K-Net on every kind of decode head')
    parser.add_argument('--configs', action='store_true', help='only write configs/semantic/attached/')
    parser.add_argument('--seconds', action='store_true', help='only time what works and was not timed in turns yet')
    parser.add_argument('--again', nargs='*', default=[], metavar='ALGORITHM', choices=[*algorithms],
                        help='measure these once more; what did not work is tried again anyway')
    args = parser.parse_args()
    if args.configs:
        ATTACHED.mkdir(exist_ok=True)
        for algorithm in algorithms.values():
            base = f'mmseg::{algorithm.stock}.py'
            text = attached_text(base, load_source(base), plugin='../../_base_/plugin.py')
            algorithm.attached.write_text(f'# {algorithm.name}, with K-Net.\n{text}')
        print(f'{len(algorithms)} configs in {ATTACHED}')
        return
    torch.set_num_threads(1)
    family = installed_distribution()
    rows = read_rows()
    for algorithm in algorithms.values():
        index = next((i for i, row in enumerate(rows) if (row.algorithm, row.family) == (algorithm.name, family)), None)
        old, again = None if index is None else rows[index], algorithm.name in args.again
        if args.seconds:
            if old is None or old.works != 'yes' or (old.turns == str(TURNS) and not again):
                continue
            row = time_algorithm(algorithm, old)
        elif old is None or old.works != 'yes' or again:
            row = try_algorithm(algorithm)
        else:
            continue
        if index is None:
            rows.append(row)
        else:
            rows[index] = row
        gc.collect()
        write_rows(rows)
        print(row, flush=True)
    replace_between(PAGE, BEGIN, END, table(rows))


if __name__ == '__main__':
    main()
