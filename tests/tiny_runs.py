"""A model with one layer and runs of milliseconds."""

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import FlexibleRunner, Runner
from torch.utils.data import Dataset


@MODELS.register_module()
class Line(BaseModel):
    """A line through the origin."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, x: list, mode: str = 'loss') -> Any:
        return dict(loss=self.layer(torch.stack(x)).square().mean()) if mode == 'loss' else x


@DATASETS.register_module()
class Points(Dataset):
    """Four numbers."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict:
        return dict(x=torch.tensor([float(index)]))


@METRICS.register_module()
class Count(BaseMetric):
    """Number of results."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += list(data_samples)

    def compute_metrics(self, results: list) -> dict:
        return dict(count=len(results))


def tiny_config(work_dir: Path, epochs: int = 1, resume: str | Path | None = None, **options: Any) -> Config:
    """Config of a training, with a checkpoint of each epoch, and of a test."""
    loader = dict(dataset=dict(type='Points'), batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False))
    checkpoint = dict(type='knet_plugin.CheckpointHook', interval=1, **options.pop('checkpoint', {}))
    return Config(dict(
        model=dict(type='Line'), work_dir=str(work_dir), train_dataloader=loader, test_dataloader=loader,
        test_cfg=dict(), test_evaluator=dict(type='Count'), train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)), default_hooks=dict(checkpoint=checkpoint),
        env_cfg=dict(), resume=resume is not None, load_from=resume and str(resume), default_scope='mmengine',
        log_level='ERROR', experiment_name=f'{work_dir.parent.name}_{work_dir.name}_{epochs}', **options))


def tiny_runner(kind: type, *args: Any, **options: Any) -> Runner | FlexibleRunner:
    """Runner of a ``tiny_config``."""
    return kind.from_cfg(tiny_config(*args, **options))
