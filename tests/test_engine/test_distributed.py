"""Two processes do what one does with all their images."""

import itertools
import multiprocessing
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detection_cases import sample
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from small_runs import TASKS, losses, run, small_config, small_data, weights
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from knet_plugin.engine.fsdp import wrap_large_parts
from knet_plugin.engine.runner import build_runner, leave_group, resume_conflict

SIZE = 32
BATCHES = (('objects', 'objects'), ('objects', 'void'), ('void', 'void'), ('crowd', 'stuff'), ('void', 'stuff'))
"""What the images of one process show."""


def in_two_processes(function: Callable[..., Any], folder: Path, *args: Any) -> list[Any]:
    """Call ``function(rank, *args)`` in two processes of one group, forks of this one, and return both results."""
    context = multiprocessing.get_context('fork')
    processes = [context.Process(target=_member, args=(rank, function, folder, args)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    return [torch.load(folder / f'result-{rank}.pth', weights_only=False) for rank in range(2)]


def _member(rank: int, function: Callable[..., Any], folder: Path, args: tuple) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', init_method=f'file://{folder}/group', rank=rank, world_size=2)
    torch.save(function(rank, *args), folder / f'result-{rank}.pth')
    leave_group()


def tiny_detector(task: str) -> torch.nn.Module:
    """Our smallest model, with frozen batch norms; in 64 bits, as rounding may flip a pixel of a hard mask."""
    cfg = small_config(task, Path('nowhere'), 1, model__backbone__norm_eval=True).model
    cfg.backbone.base_channels = 4
    cfg.neck.in_channels = [4, 8, 16, 32]
    return initialised(cfg).double().train()


def initialised(cfg: dict) -> torch.nn.Module:
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MMDET_MODELS.build(cfg)
    model.init_weights()
    return model


def batch(kinds: tuple[str, ...], seed: int, stuff: bool) -> dict[str, Any]:
    """Images of these ``kinds``, and their ground truth."""
    torch.manual_seed(seed)
    samples = []
    for number, kind in enumerate(kinds):
        semantic = torch.full((SIZE, SIZE), 255)
        masks = torch.zeros(0, SIZE, SIZE)
        if kind != 'void':
            semantic[:, :SIZE // 2] = 6 + number
        if kind == 'crowd':  # a thing of which no object is told apart
            semantic[:8, -8:] = 2
        if kind == 'objects':
            masks = torch.zeros(1 + seed // 2 % 2, SIZE, SIZE)
            for i, mask in enumerate(masks):
                mask[8 * i:8 * i + 8, 4:20] = 1
                semantic[mask.bool()] = i
        samples.append(sample(masks, torch.arange(len(masks)), (SIZE, SIZE), semantic if stuff else None))
    return dict(inputs=torch.randn(len(kinds), 3, SIZE, SIZE).double(), data_samples=samples)


def joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    return dict(inputs=torch.cat([first['inputs'], second['inputs']]),
                data_samples=first['data_samples'] + second['data_samples'])


def train_step(model: torch.nn.Module, data: dict[str, Any]) -> tuple[dict[str, float], Tensor]:
    """Losses, and the gradients of all parameters in one vector."""
    model.zero_grad()
    values = {name: value for name, value in model(**data, mode='loss').items() if 'loss' in name}
    sum(values.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
    return ({name: float(value.detach()) for name, value in values.items()},
            torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.requires_grad]))


def combinations(stuff: bool) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """What the images of both processes show: each of ``BATCHES`` with each."""
    return list(itertools.product(BATCHES if stuff else BATCHES[:3], repeat=2))


def all_combinations(rank: int, model: torch.nn.Module, stuff: bool) -> list[tuple[dict[str, float], Tensor]]:
    wrapped = DistributedDataParallel(model, find_unused_parameters=False, broadcast_buffers=False)
    return [train_step(wrapped, batch(kinds[rank], 2 * i + rank, stuff))
            for i, kinds in enumerate(combinations(stuff))]


@pytest.mark.parametrize('task', ['instance', 'panoptic'])
def test_every_combination_of_images_without_objects(task, tmp_path):
    """The same loss keys in both processes, no hang, no unused parameter, and the gradients of one process."""
    model = tiny_detector(task)
    stuff = task == 'panoptic'
    results = in_two_processes(all_combinations, tmp_path, model, stuff)
    for i, (kinds, *steps) in enumerate(zip(combinations(stuff), *results, strict=True)):
        both = joined(*(batch(kinds[rank], 2 * i + rank, stuff) for rank in range(2)))
        expected, gradient = train_step(model, both)
        first, second = (step[0] for step in steps)
        assert first.keys() == second.keys() == expected.keys()
        for name, value in expected.items():
            assert (first[name] + second[name]) / 2 == pytest.approx(value, rel=1e-5, abs=1e-6), (kinds, name)
        for _, found in steps:
            assert (found - gradient).norm() <= 1e-5 * gradient.norm(), kinds


def test_heads_stay_whole_when_parameters_are_sharded():
    model = tiny_detector('panoptic')
    asked = dict(recurse=True, nonwrapped_numel=100, min_num_params=10)
    assert wrap_large_parts(model, **asked) and wrap_large_parts(model.backbone, **asked)
    assert not wrap_large_parts(model.panoptic_head, **asked)


def test_other_launchers_need_gpus():
    if torch.cuda.is_available():
        pytest.skip('there is a GPU')
    with pytest.raises(ValueError, match="launcher='slurm'"):
        build_runner(Config(dict(launcher='slurm')))


def found_conflict(rank: int, choices: list[str]) -> str | None:
    return resume_conflict(choices[rank])


@pytest.mark.parametrize(('first', 'second'), [
    ('iter_4.pth', 'iter_4.pth'), ('iter_4.pth', 'nothing')])
def test_processes_that_would_resume_from_different_checkpoints(tmp_path, first, second):
    errors = in_two_processes(found_conflict, tmp_path, [first, second])
    assert errors[0] == errors[1]
    if first == second:
        assert errors[0] is None
    else:
        assert re.search(rf'process 0 on .*: {first}\n  process 1 on .*: {second}$', errors[0])


def left_group(rank: int) -> list[bool]:
    wrapped = DistributedDataParallel(torch.nn.Linear(2, 2))
    wrapped(torch.ones(1, 2)).sum().backward()
    del wrapped
    leave_group()
    left = not distributed.is_initialized()
    leave_group()  # where there is none, as in a run of one process
    return [left, not distributed.is_initialized()]


def test_leaving_the_group(tmp_path):
    assert in_two_processes(left_group, tmp_path) == [[True, True]] * 2


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    return small_data(tmp_path_factory.mktemp('distributed') / 'data', 20, 4)


def comparable_config(task: str, data: Path, iterations: int, processes: int, double: bool = True,
                      **options: Any) -> Config:
    """A training on batches of four, without batch norm, which torch synchronises on GPUs only.

    ``double`` means 64 bits: in 32, a pixel of a hard mask at the threshold may fall either way.
    """
    cfg = small_config(task, data, iterations, 4 // processes, **options)
    cfg.train_dataloader.sampler.shuffle = False
    cfg.find_unused_parameters = False
    if double:
        cfg.custom_imports.imports.append('double_precision')
        cfg.train_cfg.val_begin = iterations + 1  # prediction has 32 bits
    cfg.param_scheduler = []
    if task == 'semantic':
        for part in (cfg.model.backbone, cfg.model.decode_head.kernel_generate_head):
            part.norm_cfg = dict(type='GN', num_groups=4)
    else:
        cfg.model.backbone.norm_eval = True
    return cfg


def assert_losses_close(work_dir: Path, expected: Path, processes: int = 1, rel: float = 1e-5) -> None:
    """The mean of both processes' losses is that of the processes of another run; all have the same names."""
    both = [losses(work_dir, rank) for rank in range(2)]
    others = [losses(expected, rank) for rank in range(processes)]
    assert both[0].keys() == others[0].keys()
    for iteration, first in both[0].items():
        assert first.keys() == both[1][iteration].keys() == others[0][iteration].keys()
        for name in first:
            if 'loss' in name:
                value, wanted = (sum(run[iteration][name] for run in runs) / len(runs) for runs in (both, others))
                assert value == pytest.approx(wanted, rel=rel, abs=1e-7), (iteration, name)


def assert_weights_close(found: dict[str, Tensor], expected: dict[str, Tensor], atol: float = 1e-6) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close({name: found[name]}, {name: value}, rtol=1e-5, atol=atol)


@pytest.mark.slow
@pytest.mark.parametrize('task', TASKS)
def test_five_steps_equal_those_of_one_process(task, data, tmp_path):
    run(comparable_config(task, data, 5, 1), tmp_path / 'one')
    run(comparable_config(task, data, 5, 2), tmp_path / 'two', gpus=2)
    assert_losses_close(tmp_path / 'two', tmp_path / 'one')
    assert_weights_close(weights(tmp_path / 'two'), weights(tmp_path / 'one'))


@pytest.mark.slow
def test_sharded_training_equals_unsharded_and_resumes(data, tmp_path):
    """With mmengine's FlexibleRunner and our strategy: the same losses and weights, also after an end in between."""
    cfg = comparable_config('panoptic', data, 4, 2, double=False, default_hooks__checkpoint__interval=2)
    cfg.optim_wrapper.optimizer = dict(type='SGD', lr=0.01)  # Adam would not notice how gradients are clipped
    cfg.load_from = str(tmp_path / 'start.pth')  # the two runners draw initial weights in different orders
    torch.save(dict(state_dict=initialised(cfg.model).state_dict()), cfg.load_from)
    run(cfg, tmp_path / 'plain', gpus=2)
    cfg.runner_type = 'FlexibleRunner'
    policy = dict(type='knet_plugin.engine.fsdp.wrap_large_parts', min_num_params=20000)
    cfg.strategy = dict(type='knet_plugin.KNetFSDPStrategy', model_wrapper=dict(auto_wrap_policy=policy))
    run(cfg, tmp_path / 'sharded', gpus=2)
    assert_losses_close(tmp_path / 'sharded', tmp_path / 'plain', processes=2, rel=2e-3)
    state, expected = (torch.load(tmp_path / name / 'iter_4.pth', weights_only=False)['state_dict']
                       for name in ('sharded', 'plain'))
    assert_weights_close(state, expected, atol=1e-4)  # in 32 bits, pixels of hard masks at the threshold may flip

    run(cfg, tmp_path / 'resumed', '--resume', str(tmp_path / 'sharded/iter_2.pth'), gpus=2)
    assert losses(tmp_path / 'resumed') == {
        iteration: pytest.approx(values, rel=1e-5) for iteration, values in losses(tmp_path / 'sharded').items()
        if iteration >= 2}
    assert_weights_close(torch.load(tmp_path / 'resumed/iter_4.pth', weights_only=False)['state_dict'], state)
