"""Optimising a model by its config, wherever it is built: by runners, inferencers or the hosts' ``init_detector``."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from knet_plugin.inference.optimize import checked_options
from knet_plugin.inference.optimized_step import OptimizedTestStep
from knet_plugin.registry import MODELS

__all__ = ['build_optimized']


@MODELS.register_module(name='OptimizedForInference')
def build_optimized(optimized_type: str, dtype: str | torch.dtype = 'float32',
                    compile: bool | Mapping[str, Any] = False, channels_last: bool = True, **model: Any) -> nn.Module:
    """Build a model whose ``test_step`` runs what :func:`knet_plugin.optimize_for_inference` makes of it.

    In a config, ``model.type`` becomes ``'knet_plugin.OptimizedForInference'``, and what it was is ``optimized_type``;
    the rest stays. Tests, test-time augmentation and the hosts' inferencers call ``test_step``. Everything else,
    training and validation included, sees the plain model. The copy is made by the first ``test_step``, and again when
    the weights have been exchanged since; its deviation is measured on the first image. Only what is written through
    ``tensor.data`` goes unnoticed, as when mmengine's ``EMAHook`` puts the weights back after a test:
    ``model.test_step.optimized = None`` drops the copy.

    Args:
        optimized_type: Type of a detector of mmdet or a segmentor of mmseg, such as ``'KNet'`` or ``'EncoderDecoder'``.
        dtype: ``'float32'``, ``'bfloat16'`` or ``'float16'``, or torch's object of that name.
        compile: As for the function.
        channels_last: As for the function.
        model: Arguments of the model.

    Returns:
        The model. Errors of the function are raised by ``test_step``.

    Raises:
        TypeError: If ``dtype``, ``compile`` or ``channels_last`` is of a wrong type.
        ValueError: If ``dtype`` is none of the above.
    """
    options = checked_options(dtype, compile, channels_last)
    built = MODELS.build(dict(model, type=optimized_type))
    built.test_step = OptimizedTestStep(built, options)
    return built
