"""Trainings of seconds for the three tasks, each in processes of its own, and what they leave behind."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
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
TIMEOUT = 900
"""Seconds after which a run counts as hung."""


@HOOKS.register_module()
class Recorder(Hook):
    """Writes the losses of every iteration to ``losses-RANK.jsonl`` and the final weights to ``weights.pth``."""

    priority = 'LOWEST'

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        values = {name: float(value) for name, value in outputs.items()}
        with Path(runner.work_dir, f'losses-{runner.rank}.jsonl').open('a') as file:
            file.write(json.dumps(dict(iter=runner.iter, **values)) + '\n')

    def after_train(self, runner: Runner) -> None:
        # In all processes: sharded weights are gathered.
        state = getattr(runner.model, 'module', runner.model).state_dict()
        if runner.rank == 0:
            torch.save(state, Path(runner.work_dir, 'weights.pth'))


@HOOKS.register_module()
class Killer(Hook):
    """Kills the process as ``kill -9`` does.

    Args:
        after: Number of iterations.
        saving: Whether to kill it while the checkpoint after that iteration is half written.
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


def small_data(root: Path, num_train: int = 16, num_val: int = 8) -> Path:
    """Shapes, with few images."""
    make_shapes(root, num_train, num_val, **CLEAR)
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


def run(cfg: Config, work_dir: Path, *arguments: str, command: str = 'train', gpus: int = 1,
        check: bool = True) -> 'subprocess.CompletedProcess[str]':
    """Train or test in processes of their own, on the CPU where there is no GPU.

    Args:
        cfg: The config; it is written to ``work_dir/config.py``.
        work_dir: Folder of the run.
        arguments: Further command line arguments.
        command: 'train' or 'test'.
        gpus: Number of processes.
        check: Whether the run has to succeed.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    config = work_dir / 'config.py'
    cfg.dump(config)
    launch = ['--launcher', 'pytorch', '--gpus', str(gpus)] if gpus > 1 else []
    line = [sys.executable, '-m', 'knet_plugin', command, str(config), *arguments, '--work-dir', str(work_dir), *launch]
    # A killed run leaves data-loading processes that wait for it: they must hold no pipe that is read here.
    with (work_dir.parent / 'output.txt').open('w+') as output:
        process = subprocess.Popen(line, stdout=output, stderr=subprocess.STDOUT, text=True, cwd=work_dir.parent,
                                   env=run_environment(), start_new_session=True)
        try:
            process.wait(TIMEOUT)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        output.seek(0)
        done = subprocess.CompletedProcess(line, process.returncode, output.read(), '')
    assert not check or done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done


def run_environment(**variables: str) -> dict[str, str]:
    """Environment in which a config can import this module; one thread per process."""
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

