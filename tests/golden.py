"""Numbers of the official code: reading them, and building our modules from the official configs beside them.

Cases lie in ``tests/data/goldens``; further ones are taken from ``../shared/goldens`` and from the directory that the
environment variable ``KNET_GOLDENS`` names, where those exist.
"""

import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from knet_plugin.checkpoint import to_official
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


def assert_gradients_close(module: torch.nn.Module, golden: Golden, tolerance: float) -> None:
    """The gradient of every parameter: its values where the case has them, and in any case its norm."""
    gradients = to_official({key: value.grad for key, value in module.named_parameters() if value.requires_grad},
                            module)
    expected = golden.group('out/grad_param/')
    assert_close({key: gradients[key] for key in expected}, expected, tolerance)
    norms = golden.info['grad_l2_norm_per_param']
    assert_close({key: gradient.norm() for key, gradient in gradients.items()},
                 {key: torch.tensor(norm) for key, norm in norms.items()}, tolerance)


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


def localization_fpn_config(official: dict) -> dict:
    """Our config of an official ``SemanticFPNWrapper``."""
    known = {'type', 'in_channels', 'feat_channels', 'out_channels', 'start_level', 'end_level', 'upsample_times',
             'positional_encoding', 'cat_coors', 'cat_coors_level', 'fuse_by_cat', 'return_list', 'num_aux_convs',
             'norm_cfg', 'with_pred'}
    assert official.keys() <= known, official.keys() - known
    assert (official['start_level'], official['end_level']) == (0, 3)
    encoding = official.get('positional_encoding')
    return dict(
        type='knet_plugin.LocalizationFPN', in_channels=official['in_channels'],
        feat_channels=official['feat_channels'], out_channels=official['out_channels'],
        output_level=3 - official['upsample_times'],
        positional_encoding=encoding and dict(encoding, type='mmdet.SinePositionalEncoding'),
        coordinates=official['cat_coors'], position_level=official['cat_coors_level'],
        fuse='concat' if official['fuse_by_cat'] else 'sum', with_pred=official.get('with_pred', True),
        num_aux_convs=official['num_aux_convs'], norm_cfg=official.get('norm_cfg'))


def kernel_head_config(official: dict) -> dict:
    """Our config of an official ``ConvKernelHead``, without its losses."""
    assert official['num_loc_convs'] == official['num_seg_convs']
    activation = None
    if official['proposal_feats_with_obj']:
        activation = (dict(type='knet_plugin.HardMask') if official['use_binary'] else
                      dict(type='knet_plugin.SigmoidMask', threshold=0.5))
    return dict(
        type='knet_plugin.KernelHead', num_things_classes=official['num_thing_classes'],
        num_stuff_classes=official['num_stuff_classes'] if official.get('cat_stuff_mask') else 0,
        num_kernels=official['num_proposals'], channels=official['out_channels'],
        kernel_size=official['conv_kernel_size'],
        localization_fpn=localization_fpn_config(official['localization_fpn']), mask_activation=activation,
        num_convs=official['num_loc_convs'],
        refine=official['feat_refine'] and official['feat_downsample_stride'] > 1, norm_cfg=official['norm_cfg'])


def loss_config(*official: dict) -> dict:
    """Our config of the losses that official heads have, which must agree where several have one."""
    losses: dict = {}
    for cfg in official:
        for name in ('loss_mask', 'loss_dice', 'loss_cls', 'loss_seg', 'loss_rank'):
            if cfg.get(name):
                ours = dict(cfg[name], type='mmdet.' + cfg[name]['type'])
                assert losses.setdefault(name, ours) == ours
    # The goldens' semantic maps have unlabelled pixels, which the official code makes background.
    return dict(losses, type='knet_plugin.KernelLoss', ignore_void=False)


def assigner_config(official: dict) -> dict:
    """Our config of an official ``MaskHungarianAssigner``."""
    return dict(
        type='knet_plugin.MaskHungarianAssigner',
        cls_cost=dict(official['cls_cost'], type='mmdet.FocalLossCost'),
        mask_cost=dict(official['mask_cost'], type='knet_plugin.MaskCost'),
        dice_cost=dict(official['dice_cost'], type='knet_plugin.DiceCost'), topk=official.get('topk', 1))


def detector_config(official: dict, **test_cfg: Any) -> dict:
    """Our config of an official ``KNet``."""
    kernel_head = kernel_head_config(official['rpn_head'])
    stages = official['roi_head']['mask_head']
    things, stuff = kernel_head['num_things_classes'], kernel_head['num_stuff_classes']
    for name in ('num_things_classes', 'num_stuff_classes'):
        kernel_head.pop(name)
    official_test = official['test_cfg']['rcnn']
    merge = official_test['merge_stuff_thing']
    test_cfg = dict(panoptic_on=stuff > 0, semantic_on=stuff > 0, max_per_img=official_test['max_per_img'],
                    mask_thr=official_test['mask_thr'], instance_score_thr=merge['instance_score_thr'],
                    overlap_thr=merge.get('overlap_thr', 0.6)) | test_cfg
    return dict(
        type='knet_plugin.KNet',
        data_preprocessor=dict(type='mmdet.DetDataPreprocessor', pad_size_divisor=32),
        backbone=dict(official['backbone'], type='mmdet.ResNet'),
        neck=dict(official['neck'], type='mmdet.FPN'),
        panoptic_head=dict(
            type='knet_plugin.KernelIterHead', num_things_classes=things, num_stuff_classes=stuff,
            num_stages=official['roi_head']['num_stages'], kernel_head=kernel_head,
            kernel_update_head=[update_head_config(stage, 'HardMask') for stage in stages],
            loss=loss_config(official['rpn_head'], *stages), mask_upsample=stages[0]['mask_upsample_stride'],
            stage_loss_weights=official['roi_head']['stage_loss_weights']),
        train_cfg=dict(assigner=assigner_config(official['train_cfg']['rpn']['assigner'])),
        test_cfg=test_cfg)


def loss_name(official: str) -> str:
    """Our name of an official loss or metric: its stage i is our i + 1, its kernel head our stage 0."""
    if official.startswith('s'):
        stage, name = official.split('_', 1)
        return f's{int(stage[1:]) + 1}.{name}'
    return f"s0.{official.replace('rpn_', '')}"  # 'loss_rank' stays, which the official code yields without objects


def build(cfg: dict) -> torch.nn.Module:
    """Build from our registry."""
    return MODELS.build(cfg)
