"""Testing with the optimised model."""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from knet_plugin.inference.optimize import optimize_for_inference
from knet_plugin.registry import HOOKS

__all__ = ['OptimizeForInferenceHook']


@HOOKS.register_module()
class OptimizeForInferenceHook(Hook):
    """Run tests with :func:`knet_plugin.optimize_for_inference`; training and validation run the plain model.

    The hook optimises the model before the test epoch and restores the plain model after it. It also finds the model
    inside ``MMDistributedDataParallel`` and models for test-time augmentation.

    Args:
        dtype: See the function; a config gives the name, such as ``'bfloat16'``.
        compile: See the function.
        channels_last: See the function.
    """

    priority = 'VERY_LOW'  # after EMAHook, which swaps in the averaged weights at the same event

    def __init__(self, dtype: str | torch.dtype = 'float32', compile: bool | Mapping[str, Any] = False,
                 channels_last: bool = True) -> None:
        self.options: dict[str, Any] = dict(dtype=dtype, compile=compile, channels_last=channels_last)

    def before_test_epoch(self, runner: Runner) -> None:
        """Make the model's ``test_step`` run an optimised copy."""
        model = _inner_model(runner.model)
        model.test_step = optimize_for_inference(model, **self.options).test_step

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Restore the model's own ``test_step``."""
        del _inner_model(runner.model).test_step


def _inner_model(model: nn.Module) -> Any:
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
