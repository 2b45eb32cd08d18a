"""A model's ``test_step`` that runs an optimised copy of the model."""

import copy
from collections.abc import Mapping
from itertools import chain
from typing import Any, cast

from torch import Tensor, nn

from knet_plugin.inference.optimize import optimize_for_inference

__all__ = ['OptimizedTestStep']


class OptimizedTestStep:
    """The ``test_step`` of a model that is optimised when it is first tested, and again when its weights have changed.

    How far the copy is from the model is measured on the first image that it is to see.

    Args:
        model: The plain model, of which an instance gets this as its ``test_step``.
        options: For :func:`knet_plugin.optimize_for_inference`, whose errors are raised when this is called.

    Attributes:
        optimized: The copy, or None while there is none.
        optimizes: By what the function knows it.
    """

    optimizes = True

    def __init__(self, model: nn.Module, options: Mapping[str, Any]) -> None:
        self.model = model
        self.options = options
        self.optimized: Any = None
        self._seen: list[Any] = []

    def __call__(self, data: Any) -> Any:
        """Do what ``model.test_step(data)`` does."""
        if self.model.training:  # whose numbers depend on the batch: somebody wants just that
            return cast(Any, type(self.model)).test_step(self.model, data)
        state = [(each.data_ptr(), each.device, None if each.is_inference() else each._version)
                 for each in chain(self.model.parameters(), self.model.buffers())]
        if self.optimized is None or state != self._seen:
            self.optimized, self._seen = None, state  # the old copy's memory is free before there is another
            self.optimized = optimize_for_inference(self.model, inputs=_first_image(self.model, data), **self.options)
        return self.optimized.test_step(data)

    def __deepcopy__(self, memo: dict[int, Any]) -> 'OptimizedTestStep':
        return OptimizedTestStep(copy.deepcopy(self.model, memo), self.options)


def _first_image(model: nn.Module, data: Any) -> Tensor:
    """The first image as the network sees it, (1, C, H, W): normalised, and one crop where it goes over it in crops."""
    inputs = cast(Any, model).data_preprocessor(data, False)['inputs'][:1]
    test_cfg = getattr(model, 'test_cfg', None) or {}
    if test_cfg.get('mode') == 'slide':
        height, width = test_cfg['crop_size']
        inputs = inputs[..., :height, :width]
    return cast(Tensor, inputs)
