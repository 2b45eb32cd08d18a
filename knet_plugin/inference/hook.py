"""Running the test of a config with the optimised model."""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from knet_plugin.inference.optimize import as_dtype, check_options, optimize_for_inference
from knet_plugin.registry import HOOKS

__all__ = ['OptimizeForInferenceHook']


@HOOKS.register_module()
class OptimizeForInferenceHook(Hook):
    """Tests the model that :func:`knet_plugin.optimize_for_inference` makes of the runner's.

    The plain model is back after the test. Training and its validations always run the plain one. Models inside
    ``MMDistributedDataParallel`` or a model for test-time augmentation are exchanged there.

    Args:
        dtype: ``'float32'``, ``'bfloat16'`` or ``'float16'``, or torch's object of that name.
        compile: As for the function.
        channels_last: As for the function.

    Raises:
        TypeError: If ``dtype`` or ``compile`` is of a wrong type; before the test, if the model is sharded.
        ValueError: If ``dtype`` is none of the above; before the test, see the function.
    """

    priority = 'VERY_LOW'  # after the EMAHook has put its averages in the weights' place

    def __init__(self, dtype: str | torch.dtype = 'float32', compile: bool | Mapping[str, Any] = False,
                 channels_last: bool = True) -> None:
        self.dtype = as_dtype(dtype)
        check_options(self.dtype, compile)
        self.compile = compile
        self.channels_last = channels_last
        self._plain: nn.Module | None = None

    def before_test_epoch(self, runner: Runner) -> None:
        """Put the optimised model in."""
        self._plain = _exchange(runner, lambda model: optimize_for_inference(
            model, self.dtype, self.compile, self.channels_last))

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Put the plain model back."""
        plain, self._plain = self._plain, None
        if plain is not None:
            _exchange(runner, lambda model: plain)


def _exchange(runner: Runner, exchange: Any) -> nn.Module:
    """Exchange the model inside the runner's wrappers; the old one."""
    owner, model = None, runner.model
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        if 'module' not in model._modules:
            raise TypeError(f'OptimizeForInferenceHook cannot exchange the model inside a {type(model).__name__}')
        owner, model = model, model.module
    new = exchange(model)
    if owner is None:
        runner.model = new
    else:
        owner.module = new
    return model
