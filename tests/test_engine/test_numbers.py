"""Training in 16 bits, with accumulated gradients and activation checkpointing; determinism."""

import copy
import logging
import uuid
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from golden import relative_error
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import Runner
from small_runs import TASKS, losses, small_config, small_data

from knet_plugin.compat import release

NO_FLOAT16 = release(torch.__version__) < (2, 4)


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Mixed precision on a CPU: mmengine's own wrapper wants an accelerator."""

    def __init__(self, dtype: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dtype = getattr(torch, dtype)
        self.scaler = torch.amp.GradScaler('cpu', enabled=dtype == 'float16')

    @contextmanager
    def optim_context(self, model):
        with super().optim_context(model), torch.autocast('cpu', self.dtype):
            yield

    def backward(self, loss: torch.Tensor, **kwargs: Any) -> None:
        self.scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs: Any) -> None:
        self.scaler.unscale_(self.optimizer)
        self._clip_grad()
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer, **kwargs)
        self.scaler.update()
        skipped = self.scaler.get_scale() < before
        self.message_hub.update_scalar('train/skipped', float(skipped))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return small_data(tmp_path_factory.mktemp('shapes') / 'data')


def config(task: str, data, iterations: int, **options: Any) -> Config:
    """A small training on images of half the size."""
    cfg = small_config(task, data, iterations, **options)
    for transform in cfg.train_dataloader.dataset.pipeline:
        if transform.type == 'Resize':
            transform.scale = (64, 64)
    if task == 'semantic':
        cfg.model.data_preprocessor.size = (64, 64)
    return cfg


def train(cfg: Config, work_dir) -> Runner:
    """Run a training here and now."""
    cfg = copy.deepcopy(cfg)
    cfg.work_dir, cfg.log_level, cfg.experiment_name = str(work_dir), 'ERROR', uuid.uuid4().hex
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


@pytest.fixture(autouse=True)
def quiet_again():
    yield
    MMLogger.get_current_instance().setLevel(logging.INFO)


@pytest.mark.slow
@pytest.mark.parametrize('dtype', ['bfloat16', pytest.param('float16', marks=pytest.mark.skipif(
    NO_FLOAT16, reason='torch has no float16 convolution for CPUs yet'))])
@pytest.mark.parametrize('task', TASKS)
def test_mixed_precision_stays_finite(task, dtype, data, tmp_path):
    cfg = config(task, data, 200, optim_wrapper__type='CPUAmpOptimWrapper', optim_wrapper__dtype=dtype)
    runner = train(cfg, tmp_path)
    records = losses(tmp_path)
    values = torch.tensor([record['loss'] for record in records.values()])
    assert len(values) == 200
    assert all(torch.tensor(list(record.values())).isfinite().all() for record in records.values())
    assert values[-10:].mean() < .8 * values[:10].mean()
    assert all(parameter.isfinite().all() and parameter.dtype == torch.float32 for parameter in
               runner.model.parameters())
    # Starting at 65,536, the scale may be halved a few times until the gradients fit.
    skipped = sum(runner.message_hub.get_scalar('train/skipped').data[0])
    assert skipped <= (8 if dtype == 'float16' else 0)


@pytest.mark.parametrize('task', TASKS)
def test_the_same_seed_gives_the_same_bits(task, data, tmp_path):
    states = []
    for name in 'ab':
        cfg = config(task, data, 3)
        cfg.randomness = dict(seed=1, deterministic=True)
        try:
            states.append(train(cfg, tmp_path / name).model.state_dict())
        finally:
            torch.use_deterministic_algorithms(False)
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert losses(tmp_path / 'a') == losses(tmp_path / 'b')


@pytest.mark.parametrize('task', TASKS)
def test_activation_checkpointing_changes_nothing(task, data, tmp_path):
    states = []
    for with_cp in (False, True):
        cfg = config(task, data, 3, model__backbone__with_cp=with_cp)
        if task != 'semantic':
            cfg.model.panoptic_head.with_cp = with_cp
        states.append(train(cfg, tmp_path / str(with_cp)).model.state_dict())
    for key, value in states[0].items():
        # The backbone's own checkpointing sees a batch twice, and so do its batch norms: that is the host's.
        if 'running' not in key and 'num_batches' not in key:
            assert relative_error(states[1][key], value) < 1e-5 or (states[1][key] - value).abs().max() < 1e-7, key
    for iteration, record in losses(tmp_path / 'False').items():
        assert losses(tmp_path / 'True')[iteration] == pytest.approx(record, rel=1e-4)


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def mirrored(batch: dict[str, list]) -> dict[str, list]:
    """Other images, which show as many segments on as many pixels."""
    changed = copy.deepcopy(batch)
    changed['inputs'] = [255 - image.flip(-1) for image in changed['inputs']]
    for sample in changed['data_samples']:
        if 'gt_instances' in sample:
            sample.gt_instances.masks = sample.gt_instances.masks.flip()
            sample.gt_instances.bboxes = sample.gt_instances.masks.get_bboxes(type(sample.gt_instances.bboxes))
        if 'gt_sem_seg' in sample:
            for name, value in sample.gt_sem_seg.items():
                sample.gt_sem_seg.set_data({name: value.flip(-1)})
    return changed


def stepped(runner: Runner, batches: list[dict[str, list]]) -> torch.Tensor:
    """All weights after one step of gradient descent that accumulates these batches; the model stays as it is."""
    runner.model.train()
    before = copy.deepcopy(runner.model.state_dict())
    optimizer = torch.optim.SGD([each for each in runner.model.parameters() if each.requires_grad], lr=1e-2)
    wrapper = OptimWrapper(optimizer, accumulative_counts=len(batches))
    wrapper.initialize_count_status(runner.model, 0, len(batches))
    wrapper.zero_grad()
    for batch in batches:
        prepared = runner.model.data_preprocessor(copy.deepcopy(batch), training=True)
        with wrapper.optim_context(runner.model):
            loss, _ = runner.model.parse_losses(runner.model(**prepared, mode='loss'))
        wrapper.update_params(loss)
    after = torch.cat([value.flatten() for value in weights_of(runner.model).values()])
    runner.model.load_state_dict(before)
    return after


@pytest.mark.parametrize('task', TASKS)
def test_accumulated_gradients(task, data, tmp_path):
    """Two batches of two equal one of four, if they show as many segments: losses are averages over segments."""
    cfg = config(task, data, 1, model__backbone__norm_eval=True)
    if task == 'semantic':  # the head has batch norms of its own
        cfg.model.decode_head.kernel_generate_head.norm_cfg = dict(type='GN', num_groups=4)
    runner = train(cfg, tmp_path)
    batch = next(iter(runner.train_dataloader))
    half = {key: value[:2] for key, value in batch.items()}
    start = torch.cat([value.flatten() for value in weights_of(runner.model).values()])

    second = mirrored(half)
    step = stepped(runner, [{key: half[key] + second[key] for key in half}]) - start
    difference = stepped(runner, [half, second]) - start - step
    apart = stepped(runner, [half]) - start - step
    assert difference.norm() < 1e-4 * step.norm()
    assert apart.norm() > .1 * step.norm()  # the halves are not alike
