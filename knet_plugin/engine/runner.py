"""Builds runners, also for several processes on CPUs, and keeps the processes of a run together."""

import gc
import socket
from typing import Any, ClassVar

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import all_gather_object, is_distributed
from mmengine.registry import RUNNERS
from mmengine.runner import FlexibleRunner, Runner

__all__ = ['build_runner', 'leave_group', 'resume_conflict']


def build_runner(cfg: Config) -> Runner | FlexibleRunner:
    """Build mmengine's ``Runner``, or the runner that ``runner_type`` names.

    mmengine expects one GPU per process. On a machine without GPU, the processes of ``launcher='pytorch'`` compute on
    the CPU instead and communicate by gloo; for this, options of the model wrapper change in ``cfg``.
    """
    launcher = cfg.get('launcher', 'none')
    if launcher != 'none' and get_device() == 'cpu':
        if launcher != 'pytorch':
            raise ValueError(f'launcher={launcher!r} needs GPUs; use pytorch on CPUs')
        if not is_distributed():
            torch.distributed.init_process_group('gloo')
        _wrap_for_cpu(cfg)
    quick = RunConfig(cfg._cfg_dict, filename=cfg.filename)
    return RUNNERS.build(quick) if 'runner_type' in cfg else Runner.from_cfg(quick)


class RunConfig(Config):
    """A config that formats its text once, not for each of the log, three files and every checkpoint (1 s each)."""

    _texts: ClassVar[dict[str, str]] = {}

    @property
    def pretty_text(self) -> str:
        """The config as Python code."""
        content = repr(self._cfg_dict)
        if content not in self._texts:
            self._texts.clear()  # one is enough: a run changes its config only before it begins
            self._texts[content] = super().pretty_text
        return self._texts[content]


def _wrap_for_cpu(cfg: Config) -> None:
    """Tell ``DistributedDataParallel`` that there is no GPU. (``KNetFSDPStrategy`` takes care of itself.)"""
    options = dict(type='MMDistributedDataParallel', broadcast_buffers=False)
    if 'runner_type' not in cfg:
        options['find_unused_parameters'] = cfg.get('find_unused_parameters', False)
        cfg.model_wrapper_cfg = dict(cfg.get('model_wrapper_cfg') or options, device_ids=None)
    elif (strategy := cfg.get('strategy') or dict(type='DDPStrategy'))['type'] == 'DDPStrategy':
        cfg.strategy = dict(strategy, model_wrapper=dict(strategy.get('model_wrapper') or options, device_ids=None))


def resume_conflict(choice: str) -> str | None:
    """Return an error if the processes choose different checkpoints, as on machines that do not share the work folder.

    ``choice`` is the checkpoint of this process, or why it has none. The error lists the choices of all processes.
    """
    choices: list = all_gather_object((choice, socket.gethostname()))
    if len({each for each, _ in choices}) == 1:
        return None
    lines = ['error: the processes would resume from different checkpoints; put the work folder on shared storage']
    lines += [f'  process {rank} on {host}: {each}' for rank, (each, host) in enumerate(choices)]
    return '\n'.join(lines)


def leave_group() -> None:
    """Leave the process group at the end of a run, if there is one.

    A process that exits as a member may abort, because threads of gloo still hold Python objects. Do not call this
    after an error of one process: the others may be waiting in the group.
    """
    if is_distributed():
        gc.collect()  # frees the model wrapper, which uses the group
        # Before torch 2.8, the group waits for gloo's threads with the interpreter locked, which they may need. Freed
        # after the group, the communicators do the waiting, with the interpreter unlocked.
        group: Any = torch.distributed.group.WORLD
        communicators = [group._get_backend(device) for device in group._device_types]
        del group
        torch.distributed.destroy_process_group()
        del communicators
