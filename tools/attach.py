"""Put K-Net on a segmentor: write a config that inherits from yours, and try it on random images.

    python tools/attach.py mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py -o knet-segformer.py
"""

import argparse
import copy
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmengine.utils import import_modules_from_strings
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from knet_plugin.migration import load_source
from knet_plugin.semantic.attach import attach, attached_text


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Put K-Net on the decode head of an mmseg config, and try it')
    parser.add_argument('config', help='path of a config, or a name such as mmseg::fcn/NAME.py')
    parser.add_argument('--stages', type=int, default=3, help='kernel update stages')
    parser.add_argument('--lr-mult', type=float, metavar='X', help='learning rate of the stages as a multiple of the '
                        'optimizer\'s (default: 1e-4 with Adam and its variants, otherwise the optimizer\'s)')
    parser.add_argument('-o', '--out', type=Path, help='new file; without it, the config is printed')
    parser.add_argument('--size', type=int, nargs=2, metavar=('H', 'W'), help='size of the images to try it on')
    parser.add_argument('--no-smoke-test', action='store_true', help='write the config without trying it')
    return parser.parse_args()


class Cost(NamedTuple):
    """Number of parameters, and multiply-accumulates (mmengine's FLOPs) of one prediction."""

    parameters: int
    flops: float


def input_size(cfg: Config) -> tuple[int, int]:
    """Height and width of a config's training images; 512 x 512 if it does not say."""
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    size = preprocessor.get('size') or cfg.get('crop_size') or 512
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def build_segmentor(cfg: Config, size: tuple[int, int]) -> BaseSegmentor:
    """A config's model with random weights and plain batch norm, for training images of a height and width."""
    model = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor'):  # mmengine's runners accept it outside the model
        model.setdefault('data_preprocessor', copy.deepcopy(cfg.data_preprocessor))
    if 'size' in (model.get('data_preprocessor') or {}):
        model.data_preprocessor.size = size
    for part in (model, model.get('backbone') or {}):
        part.pop('pretrained', None)
        part.pop('init_cfg', None)
    with DefaultScope.overwrite_default_scope('mmseg'):
        return revert_sync_batchnorm(MODELS.build(model))


def dummy_batch(model: BaseSegmentor, size: tuple[int, int], images: int = 2) -> dict[str, list]:
    """Random images, classes and edge maps, as mmseg's data loaders yield them."""
    classes: Any = model.num_classes
    generator = torch.Generator().manual_seed(0)
    channels = len(getattr(model.data_preprocessor, 'mean', range(3)))
    inputs = list(torch.randint(0, 256, (images, channels, *size), dtype=torch.uint8, generator=generator))
    labels = torch.randint(0, classes, (images, 1, *size), generator=generator)
    samples = [SegDataSample(metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size), gt_edge_map=PixelData(
        data=image_labels % 2), gt_sem_seg=PixelData(data=image_labels)) for image_labels in labels]
    return dict(inputs=inputs, data_samples=samples)


def train_step(model: BaseSegmentor, size: tuple[int, int], images: int = 2) -> dict[str, float]:
    """Losses and metrics of one training step with learning rate 0.

    Raises:
        FloatingPointError: If a loss is not finite.
    """
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.0))
    with DefaultScope.overwrite_default_scope('mmseg'):
        losses = model.train().train_step(dummy_batch(model, size, images), optimizer)
    if wrong := [name for name, value in losses.items() if not value.isfinite().all()]:
        raise FloatingPointError(f'these losses are not finite: {", ".join(wrong)}')
    return {name: value.item() for name, value in losses.items()}


def measure(model: BaseSegmentor, size: tuple[int, int]) -> Cost:
    """Parameters, and MACs of convolutions, matrix products and attention."""
    # Without gradients, and in one kernel, torch does not count attention.
    with DefaultScope.overwrite_default_scope('mmseg'), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), \
            FlopCounterMode(display=False) as counter:
        model.eval().test_step(dummy_batch(model, size, 1))
    return Cost(sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops() / 2)


@torch.no_grad()
def shortest_seconds(models: Sequence[BaseSegmentor], size: tuple[int, int], repetitions: int = 3) -> list[float]:
    """The shortest time of several predictions of one image by each model. The models take turns."""
    seconds: list[list[float]] = [[] for _ in models]
    with DefaultScope.overwrite_default_scope('mmseg'):
        for _ in range(repetitions):
            for model, times in zip(models, seconds, strict=True):
                batch = dummy_batch(model.eval(), size, 1)
                start = time.perf_counter()
                model.test_step(batch)
                times.append(time.perf_counter() - start)
    return [min(times) for times in seconds]


def try_out(before: Config, after: Config, size: tuple[int, int]) -> None:
    """Train both models for a step, predict, and print what K-Net adds.

    Raises:
        SystemExit: One of them does not run; the message names it.
    """
    models, costs, losses = [], [], []
    for cfg, name in ((before, 'without K-Net'), (after, 'with K-Net')):
        try:
            models.append(build_segmentor(cfg, size))
            losses.append(train_step(models[-1], size)['loss'])
            costs.append(measure(models[-1], size))
        except Exception as error:  # a model may fail in any way
            raise SystemExit(f'error: the model {name} does not run: {type(error).__name__}: {error}') from error
    seconds = shortest_seconds(models, size)
    print(f'{size[0]} x {size[1]}, CPU', file=sys.stderr)
    for name, cost, duration, loss in zip(('without', 'with K-Net'), costs, seconds, losses, strict=True):
        print(f'{name:>10}  {cost.parameters / 1e6:8.2f} M parameters  {cost.flops / 1e9:9.2f} GFLOPs  '
              f'{duration:7.3f} s an image  loss {loss:.3f}', file=sys.stderr)
    print(f'{"ratio":>10}  {costs[1].parameters / costs[0].parameters:8.2f}               '
          f'{costs[1].flops / costs[0].flops:9.2f}         {seconds[1] / seconds[0]:7.2f}', file=sys.stderr)


def read(name: str) -> Config:
    """Read the config, and import what it names, which may register its decode head.

    Raises:
        SystemExit: It cannot be read, or cannot be inherited from.
    """
    try:
        cfg = load_source(name)
        if imports := cfg.get('custom_imports'):
            import_modules_from_strings(**imports)
    except Exception as error:  # a config is code, and may fail in any way
        raise SystemExit(f'error: {name} cannot be read: {type(error).__name__}: {error}') from None
    if Config._is_lazy_import(cfg.filename):
        raise SystemExit(f'error: {name} is in mmengine\'s new style (read_base), from which _base_ cannot inherit: '
                         'use knet_plugin.attach(Config.fromfile(...)).dump(...)')
    return cfg


def base_path(config: str, out: Path | None) -> str:
    """How the new file refers to the config: by its name or its path, relative unless links would mislead."""
    if '::' in config:
        return f'{config.removesuffix(".py")}.py'
    folder = Path(os.path.abspath(out.parent)) if out else None
    return os.path.relpath(config, folder) if folder and folder == folder.resolve() else os.path.abspath(config)


def main() -> None:
    """Write the config and try it.

    Raises:
        SystemExit: The config cannot be read, K-Net does not support its head, or the model does not run.
    """
    args = parse_arguments()
    if args.stages < 1:
        raise SystemExit(f'error: --stages must be 1 or more, got {args.stages}')
    if args.out and (args.out.suffix != '.py' or args.out.exists()):
        raise SystemExit(f'error: --out must be a new file with suffix .py, but {args.out} '
                         + ('exists already' if args.out.exists() else f'has suffix {args.out.suffix!r}'))
    cfg = read(args.config)
    try:
        attached = attach(cfg, args.stages, lr_mult=args.lr_mult)
        text = attached_text(base_path(args.config, args.out), cfg, args.stages, lr_mult=args.lr_mult)
    except ValueError as error:
        raise SystemExit(f'error: {error}') from None
    if not args.no_smoke_test:
        try_out(cfg, attached, tuple(args.size) if args.size else input_size(cfg))
    if args.out is None:
        print(text)
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text)
    print(f'written to {args.out}')


if __name__ == '__main__':
    main()
