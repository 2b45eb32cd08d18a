"""Numbers of the official code: reading them, and building our modules from the official configs beside them.

Cases lie in ``tests/data/goldens``; further ones are taken from ``../shared/goldens`` and from the directory that the
environment variable ``KNET_GOLDENS`` names, where those exist.
"""

import json
import os
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from knet_plugin.registry import MODELS

ROOT = Path(__file__).resolve().parents[1]
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
    of a bias that the softmax cancels), the actual one must be so, too; a ratio of two roundings says nothing.
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


def updater_config(official: dict, channels: int) -> dict:
    """Our config of an official ``KernelUpdator`` that is fed ``channels`` channels."""
    known = {'type', 'in_channels', 'feat_channels', 'out_channels', 'input_feat_shape', 'gate_sigmoid',
             'gate_norm_act', 'activate_out', 'act_cfg', 'norm_cfg'}
    assert official.keys() <= known, official.keys() - known
    assert official.get('act_cfg', {}).get('type', 'ReLU') == 'ReLU'
    assert official['in_channels'] == official['feat_channels']
    cfg = dict(type='knet_plugin.KernelUpdater', channels=channels, group_channels=official['in_channels'],
               out_channels=official.get('out_channels'))
    return cfg | {key: official[key] for key in ('gate_sigmoid', 'gate_norm_act', 'activate_out') if key in official}


def update_head_config(official: dict, mask_activation: str) -> dict:
    """Our config of an official ``KernelUpdateHead``, semantic or (without its losses) detection."""
    channels = official['in_channels']
    activation: dict = dict(type=f'knet_plugin.{mask_activation}')
    if 'hard_mask_thr' in official:
        activation['threshold'] = official['hard_mask_thr']
    classifier = None
    if 'num_cls_fcs' in official:
        classifier = dict(type='knet_plugin.KernelClassifier', num_classes=official['num_classes'],
                          num_fcs=official['num_cls_fcs'])
    return dict(
        type='knet_plugin.KernelUpdateHead',
        channels=channels,
        kernel_size=official['conv_kernel_size'],
        mask_activation=activation,
        updater=updater_config(official['kernel_updator_cfg'], channels),
        interaction=dict(type='knet_plugin.KernelInteraction', num_heads=official['num_heads'],
                         feedforward_channels=official['feedforward_channels'] if official['with_ffn'] else None,
                         num_fcs=official['num_ffn_fcs'], dropout=official['dropout']),
        classifier=classifier,
        feat_transform=official['feat_transform_cfg'] is not None,
        num_mask_fcs=official['num_mask_fcs'],
        mask_stride=official.get('mask_transform_stride', 1))


def decode_head_config(official: dict) -> dict:
    """Our config of an official ``IterativeDecodeHead``; any other head is a stock one and stays."""
    if official['type'] != 'IterativeDecodeHead':
        return official
    generator = dict(official['kernel_generate_head'])
    generator['type'] = 'mmseg.' + generator['type'].replace('KernelHead', 'Head')
    return dict(type='knet_plugin.IterativeDecodeHead', num_stages=official['num_stages'],
                kernel_generate_head=generator | {'_scope_': 'mmseg'},
                kernel_update_head=[update_head_config(cfg, 'SoftmaxMask') for cfg in official['kernel_update_head']])


def build(cfg: dict) -> torch.nn.Module:
    """Build from our registry."""
    return MODELS.build(cfg)
