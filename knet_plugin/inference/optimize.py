"""Preparing a trained model for inference."""

import copy
import logging
from collections.abc import Mapping
from types import MethodType
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from knet_plugin.inference.compare import Deviation, check_model, compare, random_inputs, raw_outputs
from knet_plugin.inference.forwards import DTYPES, replace_forwards
from knet_plugin.inference.fusion import find_conv_bn_pairs, fuse_pairs

__all__ = ['checked_options', 'optimize_for_inference']

_NAMES = {str(dtype).removeprefix('torch.'): dtype for dtype in DTYPES}
_ROUNDING = 1e-3  # relative: more than float32 loses by another order of summation


@torch.inference_mode(False)  # which would not let the model be watched, to see what to fuse
def optimize_for_inference(model: nn.Module,
                           dtype: torch.dtype = torch.float32,
                           compile: bool | Mapping[str, Any] = False,
                           channels_last: bool = True,
                           inputs: Tensor | None = None) -> nn.Module:
    """Copy a model and make the copy fast.

    The copy is in eval mode. Batch norms are fused with the convolutions before them, and images and weights of
    convolutions lie in memory with their channels last. With a ``dtype`` of 16 bits, backbone, neck and head run under
    autocast, which keeps the statistics of norms in float32; so does K-Net all that works on its kernels alone. The
    head's logits are float32 again, and so is all of the read-out. Of heads, only K-Net's and mmseg's decode heads are
    touched: other detectors get their features in float32.

    How far the copy's numbers are from the model's is measured on ``inputs`` and logged.

    The copy has its own weights (the model's, once more, in memory), and none of them can be trained or exchanged: the
    batch norms are gone. The model itself is not changed.

    Args:
        model: A detector of mmdet or a segmentor of mmseg, with its weights loaded, on its device.
        dtype: ``torch.float32``, ``torch.bfloat16`` or, on GPUs only, ``torch.float16``.
        compile: Whether ``torch.compile`` compiles backbone, neck and head; or its options, such as
            ``dict(mode='reduce-overhead')``. Images of another size may be compiled anew.
        channels_last: Whether channels come last in memory.
        inputs: Normalised images, (B, C, H, W), to measure on: best some of those that are to come. None: one of
            256 x 256 of normal noise.

    Returns:
        The copy. It serves wherever the model did: ``inferencer.model = optimize_for_inference(inferencer.model)``.

    Raises:
        TypeError: If the model is neither a detector nor a segmentor, or one of the other arguments is of a wrong type.
        ValueError: If ``dtype`` is none of the above or not for the model's device, if the model has been optimised
            already, or if it has no ``backbone`` to be compiled or run in 16 bits.
        RuntimeError: If the model does not run on ``inputs``, before or after, or torch cannot compile it.
    """
    device = _check(model, dtype, compile, channels_last, inputs)
    inputs = random_inputs(model) if inputs is None else inputs.to(device)
    with torch.autocast(device.type, enabled=False):  # within which both would be measured in 16 bits
        return _optimized(model, dtype, compile, channels_last, inputs)


def _optimized(model: nn.Module, dtype: torch.dtype, compile: bool | Mapping[str, Any], channels_last: bool,
               inputs: Tensor) -> nn.Module:
    """The copy, whose deviation is logged; arguments are checked."""
    optimized = copy.deepcopy(model).requires_grad_(False).eval()
    if getattr(vars(optimized).get('test_step'), 'optimizes', False):  # a model that does this by itself
        del optimized.test_step
    try:
        expected, pairs = find_conv_bn_pairs(optimized, lambda: raw_outputs(optimized, inputs))
    except Exception as error:
        raise RuntimeError(f'{type(model).__name__} does not run on inputs of the shape {tuple(inputs.shape)} as it '
                           f'is: {type(error).__name__}: {error}') from error
    fuse_pairs(optimized, pairs)
    _warn_of_more_than_rounding(compare(expected, raw_outputs(optimized, inputs)), model, 'fused batch norms')
    settings = f'dtype={dtype}, compile={compile}, channels_last={channels_last}'
    try:
        replace_forwards(optimized, dtype, compile, channels_last)
        actual = raw_outputs(optimized, inputs)
    except Exception as error:
        raise RuntimeError(f'{type(model).__name__} does not run with {settings}, while it does without: '
                           f'{type(error).__name__}: {error}') from error
    optimized.train = MethodType(_refuse_training, optimized)  # type: ignore[method-assign]
    optimized._register_load_state_dict_pre_hook(_refuse_weights)
    deviations = compare(expected, actual)
    found = ', '.join(f'{name} {deviation}' for name, deviation in deviations.items())
    print_log(f'{type(model).__name__} optimised for inference ({settings}, {len(pairs)} batch norms fused). Largest '
              f'deviation from the plain model on inputs of the shape {tuple(inputs.shape)}: {found}', logger='current')
    if dtype == torch.float32:
        _warn_of_more_than_rounding(deviations, model, f'channels_last={channels_last} or compile={compile}')
    return optimized


def _warn_of_more_than_rounding(deviations: Mapping[str, Deviation], model: nn.Module, cause: str) -> None:
    found = ', '.join(f'{name} {deviation}' for name, deviation in deviations.items()
                      if not deviation.relative <= _ROUNDING)
    if found:
        print_log(f'more than rounding: {type(model).__name__} may not be fit for {cause} ({found})', logger='current',
                  level=logging.WARNING)


def checked_options(dtype: str | torch.dtype, compile: bool | Mapping[str, Any],
                    channels_last: bool) -> dict[str, Any]:
    """Options of :func:`optimize_for_inference` as a config has them, checked as far as possible without a model.

    Args:
        dtype: Name of a type, such as ``'bfloat16'``, or torch's object of that name.
        compile: As for the function.
        channels_last: As for the function.
    """
    if isinstance(dtype, str):
        if dtype not in _NAMES:
            raise ValueError(f'dtype must be one of {", ".join(_NAMES)}, got dtype={dtype!r}')
        dtype = _NAMES[dtype]
    _check_options(dtype, compile, channels_last)
    return dict(dtype=dtype, compile=compile, channels_last=channels_last)


def _check_options(dtype: torch.dtype, compile: bool | Mapping[str, Any], channels_last: bool) -> None:
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f'dtype must be a torch.dtype, got dtype={dtype!r}')
    if dtype not in DTYPES:
        raise ValueError(f'dtype must be one of {", ".join(map(str, DTYPES))}, got dtype={dtype}')
    if not isinstance(compile, bool | Mapping):
        raise TypeError(f'compile must be True, False or the options of torch.compile, got compile={compile!r}')
    if not isinstance(channels_last, bool):
        raise TypeError(f'channels_last must be True or False, got channels_last={channels_last!r}')


def _check(model: nn.Module, dtype: torch.dtype, compile: bool | Mapping[str, Any], channels_last: bool,
           inputs: Tensor | None) -> torch.device:
    """Check everything before anything is copied; the model's device."""
    _check_options(dtype, compile, channels_last)
    check_model(model)
    if not (inputs is None or isinstance(inputs, Tensor) and inputs.dim() == 4):
        found = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
        raise TypeError(f'inputs must be a tensor of images, (B, C, H, W), got {found}')
    if getattr(model.train, '__func__', None) is _refuse_training:
        raise ValueError(f'model must be a plain one, got a {type(model).__name__} that is optimised already')
    if not isinstance(getattr(model, 'backbone', None), nn.Module) and (compile is not False or dtype != torch.float32):
        raise ValueError(f'{type(model).__name__} has no backbone, so dtype={dtype} and compile={compile} do not apply')
    device = next(model.parameters()).device
    if dtype == torch.float16 and device.type == 'cpu':
        raise ValueError('dtype=torch.float16 is for GPUs, but the model is on the CPU: take torch.bfloat16')
    return device


def _refuse_training(model: nn.Module, mode: bool = True) -> nn.Module:
    """In the place of ``train``; ``eval`` passes here, too."""
    if mode:
        raise RuntimeError(f'this {type(model).__name__} is optimised for inference, its batch norms are gone: train '
                           'the plain model, which is as it was, and optimise it again')
    return type(model).train(model, False)


def _refuse_weights(*args: Any) -> None:
    raise RuntimeError('this model is optimised for inference, so weights do not fit it any more: load them into the '
                       'plain model and optimise that')
