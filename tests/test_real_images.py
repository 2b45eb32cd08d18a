"""Overfit a few real images with ``mim``: train, test the checkpoint, resume. Skipped where the images are missing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLES = Path(__file__).resolve().parents[2] / 'shared/real_samples'
CONFIGS = Path(__file__).parent / 'configs'
# Arrays of hundreds of megabytes (150 classes at full size): returning them to the system takes a third of the time.
KEEP_MEMORY = dict(MALLOC_MMAP_MAX_='0', MALLOC_TRIM_THRESHOLD_='100000000000')
METRICS = {'overfit_semantic': [r'\bmIoU'], 'overfit_panoptic': ['coco_panoptic/PQ', 'coco/segm_mAP', r'\bmIoU']}

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not SAMPLES.is_dir(), reason='no real images')]


def overfit(config: str, images: Path, folder: Path, iterations: int, tolerance: float,
            *options: str) -> list[float]:
    """Train, test and resume for ten iterations.

    Returns:
        The ``METRICS`` on the training images; the test must repeat them, the resumed training up to ``tolerance``.
    """
    def mim(command: str, *arguments: str) -> tuple[str, list[float]]:
        """Run it, and return its log and the metrics there."""
        line = [sys.executable, '-m', 'mim', command, 'knet_plugin', str(CONFIGS / f'{config}.py'), *arguments,
                '--work-dir', str(folder / 'work'), '--cfg-options', 'randomness.seed=0',
                f'param_scheduler.1.end={iterations}', *options]
        environment = dict(os.environ, **KEEP_MEMORY, REAL_IMAGES=str(images))
        done = subprocess.run(line, cwd=folder, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        log = max((folder / 'work').glob('*/*.log')).read_text()
        return log, [float(re.findall(rf'{name}: ([\d.]+)', log)[-1]) for name in METRICS[config]]

    def schedule(end: int) -> tuple[str, ...]:
        return f'train_cfg.max_iters={end}', f'train_cfg.val_interval={end}', f'default_hooks.checkpoint.interval={end}'

    options = (*options, *schedule(iterations))
    _, trained = mim('train')
    _, tested = mim('test', '--checkpoint', str(folder / f'work/iter_{iterations}.pth'))
    assert tested == pytest.approx(trained, abs=0.01)
    options = (*options, *schedule(iterations + 10))
    log, resumed = mim('train', '--resume', 'auto')
    assert f'resumed epoch: 0, iter: {iterations}' in log
    assert resumed == pytest.approx(trained, abs=tolerance)
    return trained


def test_ade20k(tmp_path):
    """Three images, 150 classes; mmseg averages the IoU over the classes that occur."""
    miou, = overfit('overfit_semantic', SAMPLES / 'ade20k', tmp_path, 300, 5)
    print(f'mIoU {miou}')
    assert miou > 80


# The two images have one object of 175 pixels that is the only one of its class: it decides about 15 of 100 in PQ.
SMALLEST_CLASS = 15


def test_coco(tmp_path):
    """Two images with 40 objects, 133 classes."""
    pq, ap, miou = overfit('overfit_panoptic', SAMPLES / 'coco', tmp_path, 400, SMALLEST_CLASS,
                           'param_scheduler.0.end=40', 'param_scheduler.1.begin=40')
    print(f'PQ {pq}, AP {100 * ap}, mIoU {miou}')
    assert pq > 85 - SMALLEST_CLASS and ap > 0.7
