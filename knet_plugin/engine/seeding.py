"""Random numbers that depend on the seed and the place in the run only, so that a resumed run draws the same ones.

The hosts seed once, at the start: what an iteration draws depends on everything drawn before it, in the main process
and in each worker that loads data, and is lost when the run is interrupted. Here every iteration and every image that
is loaded starts streams of its own. Nothing has to be stored in checkpoints, and images before the point of resumption
need not be loaded to count what they would have drawn.
"""

import random
from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.runner import Runner
from torch.utils.data import Sampler

from knet_plugin.registry import DATA_SAMPLERS, DATASETS, HOOKS, SCOPE

__all__ = ['NumberedIndex', 'NumberedSampler', 'SeedHook', 'SeededDataset', 'seed_by_position', 'seed_streams']


def seed_by_position(cfg: Config) -> None:
    """Let a training draw its random numbers by position, in place; calling it again changes nothing.

    Without ``randomness.seed`` nothing is done: such a run is not to be repeated.

    Args:
        cfg: Config of a training.
    """
    seed = (cfg.get('randomness') or {}).get('seed')
    if seed is None:
        return
    loader = cfg.train_dataloader
    if loader.dataset.type == f'{SCOPE}.SeededDataset':  # the config was taken from an earlier run's folder
        loader.dataset.seed = seed
        return
    loader.dataset = dict(type=f'{SCOPE}.SeededDataset', dataset=loader.dataset, seed=seed)
    loader.sampler = dict(type=f'{SCOPE}.NumberedSampler', sampler=loader.sampler)
    cfg.custom_hooks = [dict(type=f'{SCOPE}.SeedHook'), *(cfg.get('custom_hooks') or [])]


def seed_streams(*key: int) -> None:
    """Seed the generators of Python, numpy and torch, on all devices, with several numbers at once.

    Args:
        key: Numbers of 0 and above. Different keys of the same length give independent streams.
    """
    words = np.random.SeedSequence(key).generate_state(4)
    random.seed(words.tobytes())
    np.random.seed(words)
    torch.manual_seed(int(words.view(np.uint64)[0]))


@HOOKS.register_module()
class SeedHook(Hook):
    """Seeds before every iteration, for what the model draws: dropout, random points, and the like."""

    priority = 'HIGHEST'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed with the number of the iteration."""
        seed_streams(runner.seed, runner.rank, 0, runner.iter)


class NumberedIndex(int):
    """Index of an image, with ``number``, which no other index of the run has: 0, epoch from 1, place therein.

    Places are counted over all processes, in the order in which the hosts' samplers deal the images out to them:
    however many processes there are, an image is loaded with the same random numbers.
    """

    number: tuple[int, int, int]


@DATA_SAMPLERS.register_module()
class NumberedSampler(Sampler):
    """Numbers the indices of another sampler; indices that are no integers pass unchanged.

    Args:
        sampler: Config of the other.
        dataset: Data set, for the other.
        seed: For the other.
    """

    def __init__(self, sampler: dict, dataset: Any, seed: int | None = None) -> None:
        self.sampler = MMENGINE_DATA_SAMPLERS.build(sampler, default_args=dict(dataset=dataset, seed=seed))
        self.dataset = dataset
        self._epoch = 0
        self._skipped = 0
        # The forks' loop over iterations looks for it, and goes another way if it is missing.
        if hasattr(self.sampler, 'skip'):
            self.skip = self._skip

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        epoch, first, self._skipped = self._epoch + 1, self._skipped, 0
        for place, index in enumerate(self.sampler, first):
            if isinstance(index, Integral):
                index = NumberedIndex(index)
                index.number = (0, epoch, place * get_world_size() + get_rank())
            yield index

    def set_epoch(self, epoch: int) -> None:
        """Tell the number of the next epoch, from 0."""
        self._epoch = epoch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def _skip(self, num_samples: int) -> None:
        """Leave out the first indices."""
        self.sampler.skip(num_samples)
        self._skipped = num_samples


@DATASETS.register_module()
class SeededDataset:
    """Seeds before an image with a :class:`NumberedIndex` is loaded; else it is, to read and to write, the other one.

    Args:
        dataset: Config of the other, or itself.
        seed: Of the run.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        vars(self).update(dataset=MMENGINE_DATASETS.build(dataset) if isinstance(dataset, dict) else dataset, seed=seed)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        if isinstance(index, NumberedIndex):
            seed_streams(self.seed, *index.number)
            index = int(index)
        return self.dataset[index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):  # asked for by copy and pickle before there is any other
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.dataset, name, value)
