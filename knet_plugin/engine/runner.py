"""Several processes: on a machine without an accelerator, where the hosts' runners expect one, or on many machines."""

import contextlib
import gc
import inspect
import socket
from collections.abc import Iterator
from typing import Any

import torch
from mmengine._strategy import DDPStrategy, FSDPStrategy
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import all_gather_object
from mmengine.registry import RUNNERS, STRATEGIES
from mmengine.runner import FlexibleRunner, Runner
from torch.nn.parallel import DistributedDataParallel

__all__ = ['build_runner', 'leave_group', 'resume_conflict']

_BUFFERS = 'forward_sync_buffers'
if _BUFFERS not in inspect.signature(DistributedDataParallel).parameters:
    _BUFFERS = 'broadcast_buffers'  # its name before torch 2.13
DDP = {'type': 'MMDistributedDataParallel', _BUFFERS: False}
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
    with _no_devices():
        runner = _build(cfg)
    if replaces_nccl:
        runner.logger.info('There is no accelerator: the processes run on the CPU, with gloo instead of nccl.')
    return runner


def _build(cfg: Config) -> Runner | FlexibleRunner:
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


@contextlib.contextmanager
def _no_devices() -> Iterator[None]:
    """Let nothing come of it that mmengine gives each process a GPU, whatever the backend."""
    set_device = torch.cuda.set_device
    torch.cuda.set_device = lambda device: None
    try:
        yield
    finally:
        torch.cuda.set_device = set_device


def _wrap_without_device(cfg: Config) -> None:
    """Keep mmengine from telling the model's wrapper the number of a GPU."""
    if 'runner_type' not in cfg:
        default = dict(DDP, find_unused_parameters=cfg.get('find_unused_parameters', False))
        cfg.model_wrapper_cfg = dict(cfg.get('model_wrapper_cfg') or default, device_ids=None)
        return
    strategy = cfg.get('strategy') or dict(type='DDPStrategy')
    kind = strategy['type'] if isinstance(strategy['type'], type) else STRATEGIES.get(strategy['type'])
    if kind is None or not issubclass(kind, DDPStrategy):  # those that wrap no model, or as they like
        return
    wrapper = strategy.get('model_wrapper')
    wrapper = dict(wrapper or {}, device_id='cpu') if issubclass(kind, FSDPStrategy) else dict(
        wrapper or DDP, device_ids=None)
    cfg.strategy = dict(strategy, model_wrapper=wrapper)


def resume_conflict(choice: str) -> str | None:
    """What to say if the processes would go on from different checkpoints; None if they would not.

    Each looks for it by itself, in a work folder that may be on a disk of its machine alone.

    Args:
        choice: The checkpoint of this process, ``'nothing'``, or why it cannot go on.

    Returns:
        An error that lists the choices, the same in all processes.
    """
    choices: list[Any] = all_gather_object((choice, socket.gethostname()))
    if len({each for each, _ in choices}) == 1:
        return None
    lines = [f'process {rank} on {host}: {each}' for rank, (each, host) in enumerate(choices)]
    return ('error: the processes would resume from different checkpoints:\n  ' + '\n  '.join(lines)
            + '\nThe work folder has to be on storage that all machines share')


def leave_group() -> None:
    """Leave the group of the processes, at the end of a run that went well, or that all of them end for one reason.

    A process that ends as a member of it may be aborted: gloo's threads hold Python objects, which they let go when the
    interpreter is gone. After any other error the group stays, as others may be waiting in it.
    """
    group = torch.distributed.group.WORLD if torch.distributed.is_available() else None
    if group is None:
        return
    gc.collect()  # the wrapper of the model, which is in the group as well
    # Before torch 2.8 the group waits for gloo's threads without letting go of the interpreter, for which such a thread
    # may be waiting: forever. The communicators themselves do let go of it. So they have to be the last to leave.
    communicators = [group._get_backend(device) for device in group._device_types]
    del group
    torch.distributed.destroy_process_group()
    del communicators
