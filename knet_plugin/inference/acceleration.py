"""Running the parts of a model faster: with channels last in memory, in 16 bits, or compiled."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from knet_plugin.core import KernelUpdateHead

__all__ = ['accelerate', 'model_parts']


def accelerate(model: nn.Module, dtype: torch.dtype, compile: bool | Mapping[str, Any], channels_last: bool) -> None:
    """Replace the forward methods of backbone, neck and head by faster ones, in place.

    The options are those of ``optimize_for_inference``; ``dtype=torch.float32`` means no autocast.
    """
    # mmcv's own operators silently read maps as contiguous, and know few data types.
    operators = [module for module in model.modules()
                 if any(kind.__module__.startswith('mmcv.ops.') for kind in type(module).__mro__)]
    for module in (*operators, *(_kernel_branches(model) if dtype != torch.float32 else ())):
        module.forward = partial(_run_in_float32, module.forward)  # partials can be copied with the model
    if channels_last:
        excluded = {module for operator in operators for module in operator.modules()}
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and module not in excluded:
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for part, name, is_last in list(model_parts(model)):
        function = getattr(part, name)
        if compile is not False:
            function = torch.compile(function, **({} if compile is True else compile))
        setattr(part, name, partial(_run_fast, function, dtype, channels_last, is_last))


def model_parts(model: nn.Module) -> Iterator[tuple[nn.Module, str, bool]]:
    """Yield modules, the method of each to accelerate, and whether other code reads its outputs."""
    features = [module for name in ('backbone', 'neck') if isinstance(module := getattr(model, name, None), nn.Module)]
    heads = []
    if isinstance(head := getattr(model, 'decode_head', None), nn.Module):
        cascade = head if isinstance(head, nn.ModuleList) else [head]
        # K-Net's decode head calls the forward method of its stock head.
        heads = [(getattr(each, 'kernel_generate_head', each), 'forward') for each in cascade]
    if hasattr(head := getattr(model, 'panoptic_head', None), 'stages'):
        heads = [(head, 'stages')]  # which K-Net's forward and predict both call
    for module in features:
        yield module, 'forward', not heads and module is features[-1]
    for module, name in heads:
        yield module, name, True


def _run_fast(function: Callable[..., Any], dtype: torch.dtype, channels_last: bool, is_last: bool, *args: Any,
              **kwargs: Any) -> Any:
    """Call a function under autocast, on maps with channels last."""
    if channels_last:
        args, kwargs = tree_map(_to_channels_last, (args, kwargs))
    with torch.autocast(_device_type(args, kwargs), dtype, enabled=dtype != torch.float32):
        outputs = function(*args, **kwargs)
    return tree_map(_to_float32, outputs) if is_last else outputs


def _run_in_float32(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function on contiguous float32, also inside autocast."""
    args, kwargs = tree_map(_to_float32, (args, kwargs))
    with torch.autocast(_device_type(args, kwargs), enabled=False):
        return function(*args, **kwargs)


def _kernel_branches(model: nn.Module) -> Iterator[nn.Module]:
    """Parts of the update stages that work on kernels alone: they are cheap, and rounded scores would tie."""
    for stage in model.modules():
        if isinstance(stage, KernelUpdateHead):
            branches = stage.interaction, stage.mask_fcs, stage.fc_mask, stage.classifier
            yield from (branch for branch in branches if branch is not None)


def _device_type(*values: Any) -> str:
    return next(value.device.type for value in tree_leaves(values) if isinstance(value, Tensor))


def _to_channels_last(value: Any) -> Any:
    is_map = isinstance(value, Tensor) and value.dim() == 4
    return value.contiguous(memory_format=torch.channels_last) if is_map else value


def _to_float32(value: Any) -> Any:
    """A floating-point tensor as contiguous float32; other values unchanged."""
    return value.float().contiguous() if isinstance(value, Tensor) and value.is_floating_point() else value
