"""Running the test of a config with the optimised model."""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from knet_plugin.inference.optimize import checked_options
from knet_plugin.inference.optimized_step import OptimizedTestStep
from knet_plugin.registry import HOOKS

__all__ = ['OptimizeForInferenceHook']


@HOOKS.register_module()
class OptimizeForInferenceHook(Hook):
    """Tests what :func:`knet_plugin.optimize_for_inference` makes of the runner's model.

    The copy is made of the weights that the test begins with, and its deviation measured on the first image. It is gone
    after the test. Training and its validations always run the plain model. Models inside
    ``MMDistributedDataParallel`` or a model for test-time augmentation are optimised there.

    Args:
        dtype: ``'float32'``, ``'bfloat16'`` or ``'float16'``, or torch's object of that name.
        compile: As for the function.
        channels_last: As for the function.

    Raises:
        TypeError: If ``dtype``, ``compile`` or ``channels_last`` is of a wrong type; before the test, if the model is
            sharded. Errors of the function are raised when the first image is tested.
        ValueError: If ``dtype`` is none of the above.
    """

    priority = 'VERY_LOW'  # after the EMAHook has put its averages in the weights' place

    def __init__(self, dtype: str | torch.dtype = 'float32', compile: bool | Mapping[str, Any] = False,
                 channels_last: bool = True) -> None:
        self.options = checked_options(dtype, compile, channels_last)
        self._step: OptimizedTestStep | None = None
        self._plain: Any = None
        """What the model has had in the place of the step, if anything."""

    def before_test_epoch(self, runner: Runner) -> None:
        """Have the model optimise itself."""
        model: Any = _inner_model(runner.model)
        present = vars(model).get('test_step')
        if present is not self._step:  # which a test that failed has left
            self._plain = present
        self._step = model.test_step = OptimizedTestStep(model, self.options)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Leave the plain model."""
        model: Any = _inner_model(runner.model)
        del model.test_step
        if self._plain is not None:
            model.test_step = self._plain
        self._step = self._plain = None


def _inner_model(model: Any) -> nn.Module:
    """The model inside the runner's wrappers."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        if 'module' not in model._modules:
            raise TypeError(f'OptimizeForInferenceHook cannot optimise the model inside a {type(model).__name__}')
        model = model.module
    return model
