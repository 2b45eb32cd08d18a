"""What a killed process has started ends, too."""

import os
import signal
import subprocess
import sys
import time

import pytest

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
    deadline = time.monotonic() + 10
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    if is_running(child):
        os.kill(child, signal.SIGKILL)
        pytest.fail('it went on')


def is_running(pid: int) -> bool:
    try:
        with open(f'/proc/{pid}/stat') as file:
            return file.read().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False
