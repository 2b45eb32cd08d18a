import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from tiny_runs import tiny_config

from knet_plugin.engine import TimeLimitHook


class Clock:
    """A clock that only the hook below moves."""

    now = 0.0


@HOOKS.register_module()
class Duration(Hook):
    """Lets an iteration and a validation take some seconds, and notes when they end and the learning rates."""

    priority = 'VERY_HIGH'

    def __init__(self, iteration: list, validation: float) -> None:
        self.iteration, self.validation = iteration, validation
        self.validations, self.rates = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        Clock.now += self.iteration[min(runner.iter // 20, len(self.iteration) - 1)]
        self.rates.append(runner.optim_wrapper.get_lr()['lr'][0])

    def before_val_epoch(self, runner):
        Clock.now += self.validation
        self.validations.append(runner.iter)


def train(tmp_path, monkeypatch, minutes, iteration, validation=3.0, max_iters=1000, **options):
    monkeypatch.setattr(TimeLimitHook, 'clock', staticmethod(lambda: Clock.now))
    Clock.now = 0.0
    cfg = tiny_config(tmp_path / f'{minutes}-{len(iteration)}', **options)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler')
    cfg.val_dataloader, cfg.val_cfg, cfg.val_evaluator = cfg.test_dataloader, dict(), dict(type='Count')
    cfg.param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=5),
                           dict(type='PolyLR', eta_min=0, power=1, by_epoch=False, begin=5, end=max_iters)]
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=10000)
    cfg.custom_hooks = [dict(type='knet_plugin.TimeLimitHook', minutes=minutes),
                        dict(type='mmengine.Duration', iteration=iteration, validation=validation)]
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner, next(hook for hook in runner.hooks if isinstance(hook, Duration))


@pytest.mark.parametrize('iteration', [[0.5], [0.5, 1.5], [2.0, 0.5]])
def test_training_and_validations_take_the_minutes(iteration, tmp_path, monkeypatch):
    runner, seen = train(tmp_path, monkeypatch, 2, iteration)
    assert 110 <= Clock.now <= 122
    assert len(seen.validations) == 5 and seen.validations[-1] == runner.iter == runner.max_iters
    assert seen.rates[-1] < 0.1 * max(seen.rates)
    steps = [abs(after - before) for before, after in zip(seen.rates[6:], seen.rates[7:], strict=False)]
    assert max(steps) < 0.2 * max(seen.rates)  # the rate does not jump


@pytest.mark.parametrize(('validation', 'number'), [(10., 3), (25., 2)])
def test_slow_validations_are_fewer(validation, number, tmp_path, monkeypatch):
    """They take a quarter of 120 seconds at most, apart from the first, whose time is not known, and the last."""
    runner, seen = train(tmp_path, monkeypatch, 2, [0.5], validation)
    assert 1 <= len(seen.validations) <= number and seen.validations[-1] == runner.iter
    assert 100 <= Clock.now <= 122


def test_a_guess_that_is_too_short_is_extended(tmp_path, monkeypatch):
    runner, _ = train(tmp_path, monkeypatch, 1, [0.2], max_iters=20)
    assert runner.iter > 150 and 50 <= Clock.now <= 61


def test_a_slow_machine_still_validates_at_the_end(tmp_path, monkeypatch):
    runner, seen = train(tmp_path, monkeypatch, 0.5, [20.0])
    assert seen.validations == [runner.iter] or seen.validations[-1] == runner.iter
    assert runner.iter <= 5


@pytest.mark.parametrize('options', [dict(minutes=0), dict(minutes=-1), dict(minutes=1, validations=0)])
def test_wrong_arguments(options):
    with pytest.raises(ValueError, match='positive'):
        TimeLimitHook(**options)
