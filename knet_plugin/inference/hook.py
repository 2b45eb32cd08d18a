"""Testing with the optimised model."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner

from knet_plugin.inference.optimize import optimize_for_inference
from knet_plugin.registry import HOOKS

__all__ = ['OptimizeForInferenceHook']


@HOOKS.register_module()
class OptimizeForInferenceHook(Hook):
    """Run tests with :func:`knet_plugin.optimize_for_inference`; training and validation run the plain model.

    The hook optimises the model before the test epoch and restores the plain model after it, also inside
    ``MMDistributedDataParallel`` or a model for test-time augmentation.

    Args:
        dtype: See the function, also for the other options.
        compile: Whether to use ``torch.compile``, or its options.
        channels_last: Whether to store channels last.
    """

    priority = 'VERY_LOW'  # after EMAHook, which swaps in the averaged weights at the same event

    def __init__(self, dtype: str = 'float32', compile: bool | dict = False, channels_last: bool = True) -> None:
        self.options: dict[str, Any] = dict(dtype=dtype, compile=compile, channels_last=channels_last)

    def before_test_epoch(self, runner: Runner) -> None:
        """Let the model's ``test_step`` run an optimised copy."""
        model = _inner_model(runner.model)
        model.test_step = optimize_for_inference(model, **self.options).test_step

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Restore the model's own ``test_step``."""
        del _inner_model(runner.model).test_step


def _inner_model(model: Any) -> Any:
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
