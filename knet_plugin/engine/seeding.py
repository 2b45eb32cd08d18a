"""Random numbers that depend only on the seed and the position in the run, so that a resumed run repeats them.

The hosts seed once, at the start, and an interruption loses the state of the generators. Here, every iteration and
every loaded image is seeded anew.
"""

import random
from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
import torch
from mmengine import registry as mmengine_registry
from mmengine.config import Config
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import Sampler

from knet_plugin.registry import DATA_SAMPLERS, DATASETS, HOOKS, SCOPE

__all__ = ['NumberedIndex', 'NumberedSampler', 'SeedHook', 'SeededDataset', 'seed_by_position', 'seed_streams']


def seed_by_position(cfg: Config) -> None:
    """Add ``SeedHook``, ``NumberedSampler`` and ``SeededDataset`` in place to a config with ``randomness.seed``.

    Calling it again only updates the seed.
    """
    seed = (cfg.get('randomness') or {}).get('seed')
    if seed is None:
        return
    loader = cfg.train_dataloader
    if loader.dataset.type == f'{SCOPE}.SeededDataset':
        loader.dataset.seed = seed
        return
    loader.dataset = dict(type=f'{SCOPE}.SeededDataset', dataset=loader.dataset, seed=seed)
    loader.sampler = dict(type=f'{SCOPE}.NumberedSampler', sampler=loader.sampler)
    cfg.custom_hooks = [dict(type=f'{SCOPE}.SeedHook'), *(cfg.get('custom_hooks') or [])]


def seed_streams(*key: int) -> None:
    """Seed Python, numpy and torch (all devices); different keys of one length give independent streams."""
    words = np.random.SeedSequence(key).generate_state(4)
    random.seed(words.tobytes())
    np.random.seed(words)
    torch.manual_seed(int(words.view(np.uint64)[0]))


@HOOKS.register_module()
class SeedHook(Hook):
    """Seeds before every iteration: dropout, random points and the like."""

    priority = 'HIGHEST'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed with the run's seed, the rank and the iteration."""
        seed_streams(runner.seed, runner.rank, 0, runner.iter)


class NumberedIndex(int):
    """Index of an image with its position in the run, which does not depend on the number of processes."""

    number: tuple[int, int]  # epoch from 1, position in the epoch over all processes


@DATA_SAMPLERS.register_module()
class NumberedSampler(Sampler):
    """Turns the indices of another ``sampler`` into ``NumberedIndex``; other items, such as batches, stay."""

    def __init__(self, sampler: dict, dataset: Any, seed: int | None = None) -> None:
        self.sampler = mmengine_registry.DATA_SAMPLERS.build(sampler, default_args=dict(dataset=dataset, seed=seed))
        self.dataset = dataset
        self._epoch = 0
        self._skipped = 0
        if hasattr(self.sampler, 'skip'):  # the forks' training loop checks for it when it resumes
            self.skip = self._skip

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        epoch, first, self._skipped = self._epoch + 1, self._skipped, 0
        for place, index in enumerate(self.sampler, first):
            if isinstance(index, Integral):
                index = NumberedIndex(index)
                index.number = (epoch, place * get_world_size() + get_rank())
            yield index

    def set_epoch(self, epoch: int) -> None:
        """Set the next epoch, from 0."""
        self._epoch = epoch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def _skip(self, num_samples: int) -> None:
        self.sampler.skip(num_samples)
        self._skipped = num_samples


@DATASETS.register_module()
class SeededDataset:
    """Seeds before it loads an image with a ``NumberedIndex``; otherwise it delegates to the wrapped data set."""

    def __init__(self, dataset: dict, seed: int) -> None:
        # __setattr__ would set them on the wrapped data set.
        vars(self).update(dataset=mmengine_registry.DATASETS.build(dataset), seed=seed)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        if isinstance(index, NumberedIndex):
            seed_streams(self.seed, 0, *index.number)
            index = int(index)
        return self.dataset[index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):  # copy and pickle ask before there is a data set
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.dataset, name, value)
