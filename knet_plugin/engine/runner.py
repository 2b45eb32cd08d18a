"""Runs of our tools: their hooks, their runner, their console, and how they end; also in several processes."""

from __future__ import annotations

import contextlib
import gc
import os
import shlex
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from mmengine import hooks
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import all_gather_object, is_distributed
from mmengine.registry import RUNNERS
from mmengine.runner import FlexibleRunner, Runner

from knet_plugin.engine.console import quiet_console
from knet_plugin.engine.scores import best_score_key
from knet_plugin.engine.stopping import RunStopped
from knet_plugin.registry import SCOPE

__all__ = ['add_run_parts', 'build_runner', 'leave_group', 'make_work_folder', 'resume_command', 'resume_conflict',
           'run_console']

_HOOKS = tuple(f'{SCOPE}.{name}' for name in ('DataCheckHook', 'FiniteInputHook', 'SafeLoadingHook', 'ProgressHook',
                                              'ValidationReportHook', 'SheetHook', 'StopHook'))


def add_run_parts(cfg: Config) -> None:
    """Add, in place, the hooks that make a run safe to interrupt, to start from other people's files, and to follow.

    ``DataCheckHook``, ``FiniteInputHook``, ``SafeLoadingHook``, ``ProgressHook``, ``ValidationReportHook``,
    ``SheetHook`` and ``StopHook`` join ``custom_hooks`` unless they are there. mmengine's ``CheckpointHook`` becomes
    ours and keeps the best checkpoint, if the run validates; another hook, or ``None``, in its place stays. Calling it
    again changes nothing.
    """
    custom = list(cfg.get('custom_hooks') or [])
    present = {hook['type'] for hook in custom if isinstance(hook, dict)}
    cfg.custom_hooks = custom + [dict(type=name) for name in _HOOKS if name not in present]

    default = dict(cfg.get('default_hooks') or {})
    checkpoint = default.get('checkpoint', dict(type='CheckpointHook', interval=1))  # mmengine's own default
    of_mmengine = ('CheckpointHook', 'mmengine.CheckpointHook', hooks.CheckpointHook)
    if isinstance(checkpoint, dict) and checkpoint['type'] in of_mmengine:
        default['checkpoint'] = dict(checkpoint, type=f'{SCOPE}.CheckpointHook')
        best = best_score_key(cfg.get('val_evaluator')) if cfg.get('val_cfg') is not None else None
        if best and 'save_best' not in checkpoint:
            default['checkpoint'].update(save_best=best, rule='greater')
        cfg.default_hooks = default


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


@contextlib.contextmanager
def run_console(bare: bool = False) -> Iterator[None]:
    """Run a tool's work inside the block, with the hosts' own console if ``bare``.

    Ctrl-C and ``StopHook`` end the process with status 130, SIGTERM with 143, without a traceback.
    """
    try:
        with contextlib.nullcontext() if bare else quiet_console():
            yield
    except RunStopped as stop:
        if os.environ.get('RANK', '0') == '0':
            print(f'{stop}\ncontinue with:\n  {resume_command(sys.argv)}', file=sys.stderr)
        leave_group()
        raise SystemExit(128 + stop.signum) from None
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None


def make_work_folder(folder: str) -> None:
    """Make the folder of a run, or end the process with a line that says why that is impossible."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise SystemExit(f'error: the work folder {folder} cannot be written: {error.strerror}') from None
    if not os.access(folder, os.W_OK):
        raise SystemExit(f'error: the work folder {folder} cannot be written')


def resume_command(argv: Sequence[str]) -> str:
    """Return the command that continues the training with these arguments of ``tools/train.py``."""
    words, skip = [], False
    for word in argv[1:]:
        if skip and not word.startswith('-'):
            skip = False
            continue
        skip = word == '--resume'
        if not skip and not word.startswith('--resume='):
            words.append(word)
    command = f'knet train {shlex.join(words)} --resume'.replace(' --launcher none', '')
    processes = os.environ.get('LOCAL_WORLD_SIZE')  # of torchrun
    return command.replace(' --launcher pytorch', f' --launcher pytorch --gpus {processes}') if processes else command
