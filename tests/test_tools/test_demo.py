import json
import subprocess
import sys

import cv2
import pytest

from knet_plugin.cli import resolve_tool

SMALL = ['--iterations', '8', '--num-train', '16', '--num-val', '8', '--rows', '3']


def run_twice(tool, folder):
    """The whole demo in small, twice: the second run goes on from the first one's checkpoints."""
    command = [sys.executable, str(resolve_tool(tool)), *SMALL, '--data-root', str(folder / 'data'), '--work-dir',
               str(folder / 'work')]
    results = []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        assert done.returncode == 0, done.stderr[-3000:]
        results.append(json.loads((folder / 'work/results.json').read_text()))
    assert results[0] == results[1]
    assert all(0 <= value <= 100 for value in results[0].values())
    return results[0]


@pytest.mark.slow
def test_demo(tmp_path):
    assert list(run_twice('demo', tmp_path)) == ['PQ', 'PQ of things', 'PQ of stuff', 'mask AP', 'mIoU']
    for name, columns, rows in (('results', 5, 3), ('kernels', 5, 4)):
        picture = cv2.imread(str(tmp_path / f'work/{name}.png'))
        assert picture.shape[0] > rows * 256 and picture.shape[1] > columns * 256


@pytest.mark.slow
def test_semantic_demo(tmp_path):
    assert list(run_twice('demo_semantic', tmp_path)) == ['FCN', 'FCN + K-Net, M0', 'FCN + K-Net, M1',
                                                          'FCN + K-Net, M2', 'FCN + K-Net, M3 (its result)']
    panel = cv2.imread(str(tmp_path / 'work/panel.png'))
    assert panel.shape[0] > 3 * 256 and panel.shape[1] > 7 * 256
