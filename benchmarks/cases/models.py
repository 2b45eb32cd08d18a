"""Build whole models from configs, ours and the hosts'."""

import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import nn

from knet_plugin.cli import resolve_config
from knet_plugin.migration import load_source

__all__ = ['build_model', 'read_config']


def read_config(config: str) -> Config:
    """Read one of our configs by its name, or one of a host's as ``mmdet::NAME``."""
    return load_source(config) if '::' in config else Config.fromfile(resolve_config(config))


def build_model(cfg: Config, scope: str, device: torch.device) -> nn.Module:
    """Build a config's model with random weights; nothing is downloaded. ``scope`` is ``mmdet`` or ``mmseg``."""
    MMLogger.get_instance('benchmark', log_level='ERROR')
    cfg.model.pop('pretrained', None)
    cfg.model.backbone.pop('init_cfg', None)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope):
        model = revert_sync_batchnorm((MMDET_MODELS if scope == 'mmdet' else MMSEG_MODELS).build(cfg.model))
        model.init_weights()
    return model.to(device)
