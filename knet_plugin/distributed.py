"""Several processes on a machine without an accelerator, where the hosts' runners expect one."""

from unittest import mock

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import FlexibleRunner, Runner

__all__ = ['build_runner']

DDP = dict(type='MMDistributedDataParallel', broadcast_buffers=False)
"""How mmengine's runners wrap a model by default."""


def build_runner(cfg: Config) -> Runner | FlexibleRunner:
    """Build the runner of a config, and with it the group of its processes.

    Without an accelerator the processes of ``cfg.launcher`` compute on the CPU. Where the config asks for nccl, as the
    hosts' configs do, they communicate by gloo instead, and a line of the log says so.

    Args:
        cfg: A whole config, with ``runner_type`` if it is not for mmengine's ``Runner``. It is changed as said.
    """
    if cfg.get('launcher', 'none') == 'none' or get_device() != 'cpu':
        return _build(cfg)
    replaces_nccl = cfg.get('env_cfg', {}).get('dist_cfg', {}).get('backend', 'nccl') == 'nccl'
    if replaces_nccl:
        cfg.merge_from_dict({'env_cfg.dist_cfg.backend': 'gloo'})
    _wrap_without_device(cfg)
    with mock.patch.object(torch.cuda, 'set_device'):  # mmengine gives each process a GPU, whatever the backend
        runner = _build(cfg)
    if replaces_nccl:
        runner.logger.info('There is no accelerator: the processes run on the CPU, with gloo instead of nccl.')
    return runner


def _build(cfg: Config) -> Runner | FlexibleRunner:
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def _wrap_without_device(cfg: Config) -> None:
    """Keep mmengine from telling the model's wrapper the number of a GPU."""
    if 'runner_type' not in cfg:
        default = dict(DDP, find_unused_parameters=cfg.get('find_unused_parameters', False))
        cfg.model_wrapper_cfg = dict(cfg.get('model_wrapper_cfg') or default, device_ids=None)
        return
    strategy = cfg.get('strategy') or dict(type='DDPStrategy')
    wrapper = strategy.get('model_wrapper')
    if strategy['type'] == 'DDPStrategy':
        wrapper = dict(wrapper or DDP, device_ids=None)
    elif strategy['type'].endswith('FSDPStrategy'):
        wrapper = dict(wrapper or {}, device_id='cpu')
    cfg.strategy = dict(strategy, model_wrapper=wrapper)
