"""Random numbers depend on the position in the run, not on those drawn before."""

import copy
import pickle
import random
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.runner import Runner

from knet_plugin.engine.seeding import SeededDataset, SeedHook, seed_by_position, seed_streams


@DATASETS.register_module()
class Noise:
    """Ten images of noise from all three generators."""

    metainfo = dict(classes=('noise',))

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> list[float]:
        assert type(index) is int
        return [index, *draw()]


def draw() -> list[float]:
    return [random.random(), np.random.rand(), torch.rand(()).item()]


def make_loader(sampler: str, num_workers: int = 0, seed: int = 0, **options) -> torch.utils.data.DataLoader:
    cfg = Config(dict(randomness=dict(seed=seed), train_dataloader=dict(
        dataset=dict(type='Noise'), sampler=dict(type=sampler, shuffle=True), batch_size=4, num_workers=num_workers,
        collate_fn=dict(type='default_collate'), persistent_workers=num_workers > 0, **options)))
    seed_by_position(cfg)
    return Runner.build_dataloader(cfg.train_dataloader, seed=seed)


def epoch(loader, number: int) -> torch.Tensor:
    loader.sampler.set_epoch(number)
    return torch.cat([torch.stack(batch, 1) for batch in loader])


def test_streams_differ_by_key_and_repeat():
    drawn = []
    for key in ((0, 0, 1), (0, 1, 0), (0, 0, 1), (2**63, 0, 0)):
        seed_streams(*key)
        drawn.append(draw())
    assert drawn[0] == drawn[2]
    assert len({value for values in drawn for value in values}) == 9


@pytest.mark.parametrize('num_workers', [0, 2])
def test_epoch_does_not_depend_on_those_before(num_workers):
    loader = make_loader('DefaultSampler', num_workers)
    first, second = epoch(loader, 0), epoch(loader, 1)
    fresh = make_loader('DefaultSampler', 1 - num_workers // 2)
    assert torch.equal(epoch(fresh, 1), second)
    assert torch.equal(epoch(fresh, 0), first)
    assert len(torch.cat([first, second])[:, 1:].unique()) == 60
    assert not torch.equal(epoch(make_loader('DefaultSampler', seed=1), 0), first)


def test_endless_sampler_goes_on_where_it_is_told():
    whole = [torch.stack(batch, 1) for batch in islice(make_loader('InfiniteSampler'), 6)]
    assert len(torch.cat(whole)[:, 1:].unique()) == 72
    loader = make_loader('InfiniteSampler')
    if not hasattr(loader.sampler, 'skip'):
        pytest.skip('this mmengine loads what it skips')
    loader.sampler.skip(4 * 4)
    assert all(torch.equal(torch.stack(batch, 1), expected) for batch, expected in zip(loader, whole[4:], strict=False))


def test_processes_together_draw_what_one_draws(monkeypatch):
    whole = epoch(make_loader('DefaultSampler'), 0)
    monkeypatch.setattr('knet_plugin.engine.seeding.get_world_size', lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr('knet_plugin.engine.seeding.get_rank', lambda rank=rank: rank)
        drawn = epoch(make_loader('DefaultSampler'), 0)
        expected = whole[rank::2, 1:]
        assert torch.equal(drawn[:len(expected), 1:], expected)


def test_iterations_are_seeded():
    def iteration(number: int, rank: int = 0, seed: int = 0) -> list[float]:
        SeedHook().before_train_iter(SimpleNamespace(seed=seed, rank=rank, iter=number), number)
        return draw()
    assert iteration(3) == iteration(3)
    assert len({value for given in ((3,), (4,), (3, 1), (3, 0, 1)) for value in iteration(*given)}) == 12


def test_wrapped_data_set_is_read_and_written_through():
    dataset = SeededDataset(dict(type='Noise'), seed=0)
    dataset.pipeline = 'new'
    assert dataset.dataset.pipeline == 'new'
    assert dataset.metainfo == Noise.metainfo
    assert len(dataset) == 10
    assert dataset[3][0] == 3
    assert not hasattr(dataset, 'get_cat_ids')
    for twin in (copy.deepcopy(dataset), pickle.loads(pickle.dumps(dataset))):
        assert twin.dataset is not dataset.dataset
        assert twin.pipeline == 'new'


@pytest.mark.parametrize('randomness', [None, {}, dict(seed=None)])
def test_config_without_seed_stays(randomness):
    cfg = Config(dict(randomness=randomness, train_dataloader=dict(dataset=dict(type='Noise'), sampler=dict(type='A'))))
    before = copy.deepcopy(cfg.to_dict())
    seed_by_position(cfg)
    assert cfg.to_dict() == before


def test_config_is_changed_once():
    loader = dict(dataset=dict(type='Noise'), sampler=dict(type='A'))
    cfg = Config(dict(randomness=dict(seed=0), train_dataloader=loader))
    seed_by_position(cfg)
    before = copy.deepcopy(cfg.to_dict())
    assert before['custom_hooks'] == [dict(type='knet_plugin.SeedHook')]
    seed_by_position(cfg)
    assert cfg.to_dict() == before
    cfg.randomness.seed = 1
    seed_by_position(cfg)
    assert cfg.train_dataloader.dataset.seed == 1
