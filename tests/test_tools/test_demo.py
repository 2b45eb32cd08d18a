"""The demos in small, each run twice: the second run continues from the checkpoints of the first."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

DEMO = Path(__file__).resolve().parents[2] / 'demo'
SMALL = ['--iterations', '8', '--num-train', '16', '--num-val', '8']


def run_twice(name, folder):
    command = [sys.executable, str(DEMO / f'{name}.py'), *SMALL, '--work-dir', str(folder / 'work')]
    tables = []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        assert done.returncode == 0, done.stderr[-3000:]
        tables.append(json.loads((folder / 'work/results.json').read_text()))
    assert tables[0] == tables[1]
    assert all(0 <= value <= 100 for value in tables[0].values())
    return list(tables[0])


@pytest.mark.slow
def test_demo(tmp_path):
    assert run_twice('demo', tmp_path) == ['PQ', 'PQ of things', 'PQ of stuff', 'mask AP', 'mIoU']
    for name, columns, rows in (('results', 5, 3), ('kernels', 5, 4)):
        picture = cv2.imread(str(tmp_path / f'work/{name}.png'))
        assert picture.shape[0] > rows * 256 and picture.shape[1] > columns * 256
    run, = (path for path in (tmp_path / 'work').iterdir() if path.is_dir())
    command = [sys.executable, str(DEMO / 'kernels.py'), str(run), '--out', str(tmp_path / 'kernels'), '--photos', '2']
    subprocess.run(command, check=True, cwd=tmp_path)
    assert [path.name for path in (tmp_path / 'kernels').iterdir()] == ['updates.png']  # no averages of centres


@pytest.mark.slow
def test_semantic_demo(tmp_path):
    assert run_twice('demo_semantic', tmp_path) == ['FCN', 'K-Net, M0', 'K-Net, M1', 'K-Net, M2', 'K-Net, M3']
    panel = cv2.imread(str(tmp_path / 'work/panel.png'))
    assert panel.shape[0] > 3 * 256 and panel.shape[1] > 7 * 256


def test_refinement(tmp_path):
    """With the model of the clone: the photo, M0, and eight pictures for each of three stages."""
    cv2.imwrite(str(tmp_path / 'photo.png'), np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    command = [sys.executable, str(DEMO / 'refinement.py'), str(DEMO / 'nuclei'), 'photo.png', '--out', 'a.gif']
    subprocess.run(command, check=True, cwd=tmp_path)
    assert Image.open(tmp_path / 'a.gif').n_frames == 2 + 3 * 8
