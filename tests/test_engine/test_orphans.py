"""What a killed process has started ends, too."""

import contextlib
import copy
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope
from small_runs import command_line, descendants, parent_of, run_command, run_environment, small_config, small_data

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='Linux tells processes of their parent\'s end')

# Prints the number of a process that it has started, which sleeps.
FORKS = """
import os, time
from knet_plugin.orphans import end_forks_with_this
end_forks_with_this()
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(60)
"""
CALLS = """
import sys
from knet_plugin.cli import _call
_call([sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'])
"""


@pytest.mark.parametrize('script', [FORKS, CALLS])
def test_child_ends_with_its_killed_parent(script):
    with subprocess.Popen([sys.executable, '-c', script], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        assert is_running(child)
        parent.kill()
    assert_ended({child})


def test_child_of_a_parent_that_ended_before_the_child_knew():
    """The parent is not the one that it was said to be."""
    script = 'from knet_plugin.orphans import end_with_parent; end_with_parent(1); print("it went on")'
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, '')


@pytest.mark.slow
@pytest.mark.parametrize(('kind', 'processes'), [('train', 1), ('train', 2), ('test', 1)])
def test_killed_run_leaves_nothing(kind, processes, tmp_path):
    """Of one process, which is killed, or of two, whose launcher is; with workers that have much to hand over."""
    cfg = small_config('instance', small_data(tmp_path / 'data', num_val=400), 100000,
                       train_dataloader__num_workers=2, test_dataloader__num_workers=2)
    checkpoint = tmp_path / 'weights.pth'
    with DefaultScope.overwrite_default_scope('mmdet'):
        torch.save(dict(state_dict=MODELS.build(copy.deepcopy(cfg.model)).state_dict()), checkpoint)
    work_dir = tmp_path / 'run'
    arguments = command_line(cfg, work_dir, *[str(checkpoint)] * (kind == 'test'), command=kind, gpus=processes)
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=run_environment(),
                          cwd=tmp_path) as command:
        try:
            if kind == 'train':
                wait_until(lambda: len(list(work_dir.glob('losses-*.jsonl'))) == processes, 300)
            else:
                wait_until(lambda: len(descendants(command.pid)) == 3, 300)
            running = descendants(command.pid)
            first = next(pid for pid in running if parent_of(pid) == command.pid)  # the run, or the launcher
            runs = [first] if processes == 1 else [pid for pid in running if parent_of(pid) == first]
            assert len([pid for pid in running if parent_of(pid) in runs]) >= 2 * processes
            for pid in runs:
                os.kill(pid, signal.SIGSTOP)  # so that nobody takes what the workers hand over
            time.sleep(1)
            os.kill(first, signal.SIGKILL)
            for pid in runs:
                with contextlib.suppress(ProcessLookupError):  # the killed one may have gone already
                    os.kill(pid, signal.SIGCONT)
            assert command.wait(timeout=30) == 128 + signal.SIGKILL
        finally:
            command.kill()
    assert_ended(running)


def test_run_that_takes_too_long_leaves_nothing(tmp_path):
    """Not even what is in a session of its own."""
    script = ('import os, subprocess, sys, time; from pathlib import Path; '
              'child = subprocess.Popen(["sleep", "60"], start_new_session=True); '
              'Path("pid").write_text(str(child.pid)); time.sleep(60)')
    with pytest.raises(subprocess.TimeoutExpired):
        run_command([sys.executable, '-c', script], tmp_path, timeout=10)
    assert_ended({int((tmp_path / 'pid').read_text())})


def assert_ended(processes: set[int]) -> None:
    """Wait for their end a while, and kill those that go on."""
    ended = wait_until(lambda: not any(map(is_running, processes)), 20, fail=False)
    for process in filter(is_running, processes):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    assert ended, 'some went on'


def wait_until(condition: Callable[[], bool], timeout: float, fail: bool = True) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            assert not fail, 'it did not happen'
            return False
        time.sleep(0.05)
    return True


def is_running(pid: int) -> bool:
    try:
        with open(f'/proc/{pid}/stat') as file:
            return file.read().rpartition(')')[2].split()[0] != 'Z'
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or before it was read
        return False
