"""Optimising a model by its config, wherever it is built: by runners, inferencers or the hosts' ``init_detector``."""

import copy
from collections.abc import Mapping
from itertools import chain
from typing import Any, cast

import torch
from torch import nn

from knet_plugin.inference.optimize import as_dtype, check_options, optimize_for_inference
from knet_plugin.registry import MODELS

__all__ = ['build_optimized']


@MODELS.register_module(name='OptimizedForInference')
def build_optimized(optimized_type: str, dtype: str | torch.dtype = 'float32',
                    compile: bool | Mapping[str, Any] = False, channels_last: bool = True, **model: Any) -> nn.Module:
    """Build a model whose ``test_step`` runs what :func:`knet_plugin.optimize_for_inference` makes of it.

    In a config, ``model.type`` becomes ``'knet_plugin.OptimizedForInference'``, and what it was is ``optimized_type``;
    the rest stays. Tests, test-time augmentation and the hosts' inferencers call ``test_step``. Everything else,
    training and validation included, sees the plain model. The copy is made by the first ``test_step``, and again when
    the weights have been exchanged since. Only what is written through ``tensor.data`` goes unnoticed, as when
    mmengine's ``EMAHook`` puts the weights back after a test: ``model.test_step.optimized = None`` drops the copy.

    Args:
        optimized_type: Type of a detector of mmdet or a segmentor of mmseg, such as ``'KNet'`` or ``'EncoderDecoder'``.
        dtype: ``'float32'``, ``'bfloat16'`` or ``'float16'``, or torch's object of that name.
        compile: As for the function.
        channels_last: As for the function.
        model: Arguments of the model.

    Returns:
        The model. Errors of the function are raised by ``test_step``.

    Raises:
        TypeError: If ``dtype`` or ``compile`` is of a wrong type.
        ValueError: If ``dtype`` is none of the above.
    """
    dtype = as_dtype(dtype)
    check_options(dtype, compile)
    built = MODELS.build(dict(model, type=optimized_type))
    built.test_step = _OptimizedTestStep(built, dict(dtype=dtype, compile=compile, channels_last=channels_last))
    return built


class _OptimizedTestStep:
    """The ``test_step`` of a model that is optimised when it is first tested."""

    optimizes = True

    def __init__(self, model: nn.Module, options: dict[str, Any]) -> None:
        self.model = model
        self.options = options
        self.optimized: Any = None
        self.seen: list[Any] = []

    def __call__(self, data: Any) -> Any:
        if self.model.training:  # whose numbers depend on the batch: somebody wants just that
            return cast(Any, type(self.model)).test_step(self.model, data)
        state = [(each.data_ptr(), each.device, None if each.is_inference() else each._version)
                 for each in chain(self.model.parameters(), self.model.buffers())]
        if self.optimized is None or state != self.seen:
            self.optimized, self.seen = None, state  # the old copy's memory is free before there is another
            self.optimized = optimize_for_inference(self.model, **self.options)
        return self.optimized.test_step(data)

    def __deepcopy__(self, memo: dict[int, Any]) -> '_OptimizedTestStep':
        return _OptimizedTestStep(copy.deepcopy(self.model, memo), self.options)
