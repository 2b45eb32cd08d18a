"""The tutorial ``docs/own_data.md``: its commands run as they stand, and end in pictures."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

PAGE = Path(__file__).resolve().parents[1] / 'docs' / 'own_data.md'


def commands() -> list[list[str]]:
    """The commands of the first section, which builds on nothing but itself."""
    section = PAGE.read_text().split('\n## ')[1]
    blocks = re.findall(r'```bash\n(.*?)```', section, flags=re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@pytest.mark.slow
def test_every_command_runs_and_ends_in_pictures(tmp_path):
    found = commands()
    assert [command[0] for command in found] == ['knet'] * 6
    for command in found:
        done = subprocess.run([sys.executable, '-m', 'knet_plugin', *command[1:]], cwd=tmp_path, capture_output=True,
                              text=True)
        assert done.returncode == 0, f'{command}\n{(done.stdout + done.stderr)[-3000:]}'
    run = tmp_path / 'work_dirs' / 'example-panoptic'
    drawn = sorted((tmp_path / 'out').glob('*.jpg'))
    assert [path.stem for path in drawn] == [path.stem for path in sorted((tmp_path / 'pictures/images').iterdir())]
    samples = (tmp_path / 'data/example/samples').iterdir()
    for path in (*drawn, *samples, run / 'curves.png', run / 'test/confusion.png'):
        assert cv2.imread(str(path)) is not None, path
