"""Trainings of seconds for the three tasks, each in processes of its own, and what they leave behind."""

import atexit
import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from knet_plugin.cli import resolve_config
from knet_plugin.datasets.shapes import make_shapes

CONFIGS = dict(semantic='knet-s3_r18-s_fcn_1xb8-adamw-1k_shapes-128x128',
               instance='knet-s3_r18-s_fpn_1xb8-adamw-1k_shapes-instance-128x128',
               panoptic='knet-s3_r18-s_fpn_1xb8-adamw-1k_shapes-panoptic-128x128')
TASKS = tuple(CONFIGS)
CLEAR = dict(ambiguity=0, hue=1, min_object=20)


@HOOKS.register_module()
class Recorder(Hook):
    """Writes the losses of every iteration to ``losses-RANK.jsonl`` and, at the end, the weights to ``weights.pth``.

    At the very end, ``group-RANK`` says whether the process is still a member of a group.
    """

    priority = 'LOWEST'

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        values = {name: float(value) for name, value in outputs.items()}
        with Path(runner.work_dir, f'losses-{runner.rank}.jsonl').open('a') as file:
            file.write(json.dumps(dict(iter=runner.iter, **values)) + '\n')

    def after_train(self, runner: Runner) -> None:
        # In all processes: sharded weights are collected.
        state = getattr(runner.model, 'module', runner.model).state_dict()
        if runner.rank == 0:
            torch.save(state, Path(runner.work_dir, 'weights.pth'))

    def after_run(self, runner: Runner) -> None:
        note = Path(runner.work_dir, f'group-{runner.rank}').absolute()
        atexit.register(lambda: note.write_text('member' if torch.distributed.is_initialized() else 'left'))


@HOOKS.register_module()
class Killer(Hook):
    """Kills the process as ``kill -9`` does.

    Args:
        after: Number of the iteration after which, or while whose checkpoint is written.
        saving: Whether it is while the checkpoint is written: when half of it is on the disk.
    """

    priority = 'VERY_HIGH'

    def __init__(self, after: int, saving: bool = False) -> None:
        self.after = after
        self.saving = saving

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if runner.iter + 1 < self.after:
            return
        if self.saving:
            os.fsync = self._cut_and_kill
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    def _cut_and_kill(self, file: int) -> None:
        os.ftruncate(file, os.fstat(file).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)


@HOOKS.register_module()
class Watcher(Hook):
    """Writes memory and open files of the process every few iterations to ``usage.jsonl``."""

    priority = 'LOWEST'

    def __init__(self, interval: int = 20) -> None:
        self.interval = interval

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self.every_n_train_iters(runner, self.interval):
            with Path(runner.work_dir, 'usage.jsonl').open('a') as file:
                file.write(json.dumps(dict(iter=runner.iter + 1, **usage())) + '\n')


def usage() -> dict[str, int]:
    """Resident memory in KiB and number of open files of this process, and the memory of what it has started."""
    pages = os.sysconf('SC_PAGE_SIZE') // 1024
    resident = {pid: int(Path(f'/proc/{pid}/statm').read_text().split()[1]) * pages
                for pid in (os.getpid(), *(child.pid for child in multiprocessing.active_children()))}
    own = resident.pop(os.getpid())
    return dict(memory=own, workers=sum(resident.values()), files=len(os.listdir('/proc/self/fd')))


def small_data(root: Path, num_train: int = 16, num_val: int = 8) -> Path:
    """Shapes, with few images."""
    make_shapes(root, num_train, num_val, workers=0, **CLEAR)
    return root


def small_config(task: str, data_root: Path, iterations: int, batch_size: int = 4, **options: Any) -> Config:
    """The task's config for Shapes with thinner layers, no augmentation by chance, no validation, and a ``Recorder``.

    Args:
        task: One of ``TASKS``.
        data_root: What ``small_data`` made.
        iterations: How many.
        batch_size: Images of one process.
        options: Further settings, with ``__`` for the dots in their names.
    """
    cfg = Config.fromfile(resolve_config(CONFIGS[task]))
    cfg = Config(_replaced(cfg.to_dict(), f'{data_root}/'))
    cfg.model.backbone.base_channels = 8
    if task == 'semantic':
        for head in (cfg.model.decode_head.kernel_generate_head, cfg.model.get('auxiliary_head')):
            if head:
                head.update(in_channels=head.in_channels // 4, channels=16)
    else:
        cfg.model.neck.in_channels = [8, 16, 32, 64]
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[name].update(batch_size=batch_size, num_workers=0, persistent_workers=False)
    # Its end is no epoch's end, at which mmengine's loop over iterations sleeps for two seconds.
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
    cfg.train_cfg.update(max_iters=iterations, val_interval=10 * iterations)
    cfg.custom_imports = dict(imports=['small_runs'])
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='mmengine.Recorder')]
    cfg.randomness = dict(seed=0)
    cfg.merge_from_dict({name.replace('__', '.'): value for name, value in options.items()})
    return cfg


def run(cfg: Config, work_dir: Path, *arguments: str, command: str = 'train', gpus: int = 1, check: bool = True,
        timeout: float = 600, before: Callable[[], None] | None = None,
        **environment: str) -> 'subprocess.CompletedProcess[str]':
    """Train or test in processes of their own, and wait.

    Args:
        cfg: The config; it is written to ``work_dir/config.py``.
        work_dir: Folder of the run.
        arguments: Further ones of the command line.
        command: 'train' or 'test'.
        gpus: Number of processes; on the CPU where there is no GPU.
        check: Whether the run has to succeed.
        timeout: Seconds after which all its processes are killed.
        before: What is called in the new process, before it becomes the command.
        environment: Further variables.

    Raises:
        subprocess.TimeoutExpired: It took too long.
    """
    done = run_command(command_line(cfg, work_dir, *arguments, command=command, gpus=gpus), work_dir.parent, check,
                       timeout, before, **environment)
    if check:  # as one that ends as a member may be aborted, now and then
        assert [note.read_text() for note in work_dir.glob('group-*')] == ['left'] * gpus
    return done


def run_command(command: list[str], folder: Path, check: bool = True, timeout: float = 600,
                before: Callable[[], None] | None = None, **environment: str) -> 'subprocess.CompletedProcess[str]':
    """Call a command in a folder, as ``run`` does."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
                          env=run_environment(**environment), preexec_fn=before) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            # One by one: torchrun gives each process a session of its own.
            for pid in (process.pid, *descendants(process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise
    if check:
        assert process.returncode == 0, (output + errors)[-4000:]
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def descendants(pid: int) -> set[int]:
    """What a process has started, and what those have started."""
    parents = {int(path.name): parent_of(int(path.name)) for path in Path('/proc').glob('[0-9]*')}
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def parent_of(pid: int) -> int:
    """The number of a process's parent, 0 if it has ended."""
    try:
        return int(Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def command_line(cfg: Config, work_dir: Path, *arguments: str, command: str = 'train', gpus: int = 1) -> list[str]:
    """What ``run`` calls."""
    work_dir.mkdir(parents=True, exist_ok=True)
    config = work_dir / 'config.py'
    cfg.dump(config)
    launch = ['--launcher', 'pytorch', '--gpus', str(gpus)] if gpus > 1 else []
    return [sys.executable, '-m', 'knet_plugin', command, str(config), *arguments, '--work-dir', str(work_dir), *launch]


def run_environment(**variables: str) -> dict[str, str]:
    """The variables that ``run`` sets: this folder can be imported, one thread for each process."""
    search = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get('PYTHONPATH')])])
    return dict(os.environ, PYTHONPATH=search, OMP_NUM_THREADS='1', **variables)


def losses(work_dir: Path, rank: int = 0) -> dict[int, dict[str, float]]:
    """What ``Recorder`` wrote, by iteration; of one that was run twice, the last."""
    lines = (work_dir / f'losses-{rank}.jsonl').read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return {record.pop('iter'): record for record in records}


def weights(work_dir: Path) -> dict[str, Tensor]:
    """The weights at the end of a run."""
    return torch.load(work_dir / 'weights.pth', weights_only=True)


def _replaced(value: Any, root: str) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(item, root) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_replaced(item, root) for item in value)
    if isinstance(value, str):
        for folder in ('data/shapes_clear/', 'data/shapes/'):
            value = value.replace(folder, root)
    return value

