"""Numbers of the official code: reading them, and building our modules from the official configs beside them.

Cases lie in ``tests/data/goldens``; further ones are taken from ``../shared/goldens`` and from the directory that the
environment variable ``KNET_GOLDENS`` names, where those exist.
"""

import json
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from knet_plugin.checkpoint import to_official
from knet_plugin.migration import Report, detection, semantic, supervision, update_head
from knet_plugin.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = [ROOT / 'tests/data/goldens', ROOT.parent / 'shared/goldens']
if os.environ.get('KNET_GOLDENS'):
    FOLDERS.append(Path(os.environ['KNET_GOLDENS']))


def cases(pattern: str) -> list[str]:
    """Names of the cases that match a glob pattern, each once."""
    return sorted({path.stem for folder in FOLDERS for path in folder.glob(f'{pattern}.npz')})


class Golden:
    """One case: official config, weights, inputs and outputs."""

    def __init__(self, name: str) -> None:
        folder = next(folder for folder in FOLDERS if (folder / f'{name}.npz').exists())
        self.info = json.loads((folder / f'{name}.json').read_text())
        self.config = self.info['config']
        with np.load(folder / f'{name}.npz') as arrays:
            self._arrays = {key: torch.from_numpy(arrays[key]) for key in arrays.files}

    @cached_property
    def state(self) -> dict[str, Tensor]:
        return self.group('state/')

    def group(self, prefix: str) -> dict[str, Tensor]:
        """Every array below a prefix, by the rest of its name."""
        return {key.removeprefix(prefix): value for key, value in self._arrays.items() if key.startswith(prefix)}

    def __getitem__(self, key: str) -> Tensor:
        return self._arrays[key]

    def __contains__(self, key: str) -> bool:
        return key in self._arrays


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest deviation over the largest expected value."""
    assert actual.shape == expected.shape, (tuple(actual.shape), tuple(expected.shape))
    return ((actual.detach().double() - expected.double()).abs().max() / expected.double().abs().max()).item()


def assert_close(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """All arrays of a kind (outputs, or gradients) within a relative tolerance.

    Where an expected array is zero but for rounding (below a millionth of the largest of its kind, such as the gradient
    of a bias that the softmax cancels), the actual one must be so, too; a ratio of two rounding errors means nothing.
    """
    assert actual.keys() == expected.keys(), sorted(actual.keys() ^ expected.keys())
    largest = {key: value.double().abs().max().item() for key, value in expected.items()}
    rounding = 1e-6 * max(largest.values())
    wrong = {}
    for key, value in expected.items():
        if largest[key] <= rounding:
            assert actual[key].abs().max().item() <= 2 * rounding, key
        elif not (error := relative_error(actual[key], value)) <= tolerance:
            wrong[key] = error
    assert not wrong, wrong


def assert_gradients_close(module: torch.nn.Module, golden: Golden, tolerance: float) -> None:
    """The gradient of every parameter: its values where the case has them, and in any case its norm."""
    gradients = to_official({key: value.grad for key, value in module.named_parameters() if value.requires_grad},
                            module)
    expected = golden.group('out/grad_param/')
    assert_close({key: gradients[key] for key in expected}, expected, tolerance)
    norms = golden.info['grad_l2_norm_per_param']
    assert_close({key: gradient.norm() for key, gradient in gradients.items()},
                 {key: torch.tensor(norm) for key, norm in norms.items()}, tolerance)


def migrated(function: Callable[..., dict[str, Any]], *official: Any, **options: Any) -> dict[str, Any]:
    """Our config of an official part, by the package's own migration; what it cannot migrate is an error."""
    report = Report()
    cfg = function(*official, report=report, **options)
    report.check()
    return cfg


def updater_config(official: dict, channels: int) -> dict:
    """Our config of an official ``KernelUpdator`` that is fed ``channels`` channels."""
    return dict(migrated(update_head.updater_config, official), channels=channels)


def update_head_config(official: dict, mask_activation: str) -> dict:
    """Our config of an official ``KernelUpdateHead``, semantic or (without its losses) detection."""
    return migrated(update_head.update_head_config, official, mask_activation)


def decode_head_config(official: dict) -> dict:
    """Our config of an official ``IterativeDecodeHead``; any other head is a stock one and stays."""
    if official['type'] != 'IterativeDecodeHead':
        return official
    cfg = migrated(semantic.decode_head_config, official)
    generator = cfg['kernel_generate_head']  # the tests have no default scope to find its parts in
    return dict(cfg, kernel_generate_head=dict(generator, type=f'mmseg.{generator["type"]}', _scope_='mmseg'))


def localization_fpn_config(official: dict) -> dict:
    """Our config of an official ``SemanticFPNWrapper``."""
    return migrated(detection.localization_fpn_config, official)


def kernel_head_config(official: dict) -> dict:
    """Our config of an official ``ConvKernelHead``, without its losses."""
    # Hard targets are refused, since they would change the training; the tests give such targets themselves.
    return migrated(detection.kernel_head_config, {**official, 'hard_target': False})


def loss_config(*official: dict) -> dict:
    """Our config of the losses that official heads have, which must agree where several have one."""
    cfg = migrated(supervision.loss_config, {str(i): head for i, head in enumerate(official)})
    # The goldens' semantic maps have unlabelled pixels, which the official code makes background.
    return dict(cfg, ignore_void=False)


def assigner_config(official: dict) -> dict:
    """Our config of an official ``MaskHungarianAssigner``."""
    return migrated(supervision.assigner_config, official)


def detector_config(official: dict, **test_cfg: Any) -> dict:
    """Our config of an official ``KNet``."""
    cfg = migrated(detection.detector_config, official)
    cfg['panoptic_head']['criterion']['ignore_void'] = False  # see loss_config
    return dict(
        cfg,
        data_preprocessor=dict(type='mmdet.DetDataPreprocessor', pad_size_divisor=32),
        # The tests have no default scope to find these in.
        backbone=dict(cfg['backbone'], type='mmdet.ResNet'),
        neck=dict(cfg['neck'], type='mmdet.FPN'),
        test_cfg=cfg['test_cfg'] | test_cfg)


def loss_name(official: str) -> str:
    """Our name of an official loss or metric: its stage i is our i + 1, its kernel head our stage 0."""
    if official.startswith('s'):
        stage, name = official.split('_', 1)
        return f's{int(stage[1:]) + 1}.{name}'
    return f"s0.{official.replace('rpn_', '')}"  # 'loss_rank' stays, which the official code yields without objects


def build(cfg: dict) -> torch.nn.Module:
    """Build from our registry."""
    return MODELS.build(cfg)
