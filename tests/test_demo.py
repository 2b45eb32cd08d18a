import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from knet_plugin.cli import resolve_tool


@pytest.mark.slow
def test_demo(tmp_path):
    """The whole demo in small, twice: the second run goes on from the first one's checkpoints."""
    command = [sys.executable, str(resolve_tool('demo')), '--iterations', '8', '--num-train', '16', '--num-val', '8',
               '--rows', '3', '--data-root', str(tmp_path / 'data'), '--work-dir', str(tmp_path / 'work')]
    results = []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
        results.append(json.loads((tmp_path / 'work/results.json').read_text()))
    assert results[0] == results[1]
    assert list(results[0]) == ['FCN', 'FCN + K-Net, M0', 'FCN + K-Net, M1', 'FCN + K-Net, M2',
                                'FCN + K-Net, M3 (its result)']
    assert all(0 <= value <= 100 for value in results[0].values())
    panel = cv2.imread(str(Path(tmp_path / 'work/panel.png')))
    assert panel.shape[0] > 3 * 256 and panel.shape[1] > 7 * 256
