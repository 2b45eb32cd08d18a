"""Memory and open files stay what they are, however long a process trains or infers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector, init_detector
from mmengine.config import Config
from mmseg.apis import inference_model, init_model
from small_runs import run, small_config, small_data, usage

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path('/proc/self/statm').exists(), reason='needs Linux\' /proc')]

ITERATIONS = 2000
IMAGES = 5000
SIZES = (48, 56, 64, 80)  # torch caches what it compiles for a size, of a thousand convolutions
# The allocator keeps some of what it gave out: the more, the more often the run has validated and saved.
WARM_UP = 0.5
# An image of 64 x 64 is 48 KiB, and so is each of its feature maps: kept in every step, that were 48,000 KiB in 1,000.
# The hosts' history of logged values takes some 300 KiB.
MOST = 4096


def slope(steps, memory) -> float:
    """Growth in KiB per 1,000 steps after the warm-up."""
    steps, memory = np.array(steps), np.array(memory)
    late = steps > WARM_UP * steps[-1]
    return np.polyfit(steps[late], memory[late], 1)[0] * 1000


def make_images_small(cfg: Config) -> None:
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        for step in loader.dataset.pipeline:
            if step.type == 'Resize':
                step.scale = (64, 64)


def test_training(tmp_path, capsys):
    data = small_data(tmp_path / 'data', num_train=64)
    cfg = small_config('panoptic', data, ITERATIONS, batch_size=2, train_dataloader__num_workers=2,
                       train_dataloader__persistent_workers=True, default_hooks__checkpoint__interval=250,
                       default_hooks__checkpoint__max_keep_ckpts=1, train_cfg__val_interval=250)
    make_images_small(cfg)
    cfg.custom_hooks.append(dict(type='mmengine.Watcher'))
    # Large blocks go back to the system as soon as they are freed, so that what is measured is what is held.
    run(cfg, tmp_path / 'run', timeout=1800, MALLOC_MMAP_THRESHOLD_='65536')

    records = [json.loads(line) for line in (tmp_path / 'run' / 'usage.jsonl').read_text().splitlines()]
    steps, memory, workers, files = ([record[name] for record in records] for name in
                                     ('iter', 'memory', 'workers', 'files'))
    growth, growth_of_workers = slope(steps, memory), slope(steps, workers)
    with capsys.disabled():
        print(f'\ntraining: {memory[-1] / 1024:.0f} MiB, {growth:+.0f} KiB per 1,000 iterations; workers '
              f'{workers[-1] / 1024:.0f} MiB, {growth_of_workers:+.0f}; files {min(files)} to {max(files)}')
    assert steps[-1] == ITERATIONS
    assert growth < MOST
    assert growth_of_workers < MOST
    # The least of many: what the workers are just handing over comes and goes.
    assert min(files[-50:]) <= min(files[:50]) + 2


@pytest.mark.parametrize('task', ['semantic', 'panoptic'])  # one of each host
def test_inference(task, tmp_path, capsys):
    cfg = small_config(task, tmp_path, 1)
    make_images_small(cfg)
    torch.manual_seed(0)
    if task == 'semantic':
        model, infer = init_model(cfg, device='cpu'), inference_model
    else:
        model, infer = init_detector(cfg, device='cpu', palette='random'), inference_detector
    rng = np.random.default_rng(0)
    steps, memory, files = [], [], []
    for step in range(1, IMAGES + 1):
        height, width = rng.choice(SIZES, 2)
        infer(model, rng.integers(0, 256, (height, width, 3), np.uint8))
        if step % 50 == 0:
            now = usage()
            steps.append(step)
            memory.append(now['memory'])
            files.append(now['files'])
    growth = slope(steps, memory)
    with capsys.disabled():
        print(f'\ninference, {task}: {memory[-1] / 1024:.0f} MiB, {growth:+.0f} KiB per 1,000 images; '
              f'files {min(files)} to {max(files)}')
    assert growth < MOST
    assert files[-1] <= files[0]
