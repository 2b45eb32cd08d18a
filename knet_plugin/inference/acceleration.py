"""Faster forwards for the parts of a model: in another memory layout, in 16 bits, or compiled."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from knet_plugin.core import KernelUpdateHead
from knet_plugin.detection.kernel_iter_head import KernelIterHead
from knet_plugin.semantic.iterative_decode_head import IterativeDecodeHead

__all__ = ['DTYPES', 'replace_forwards']

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""What the products of backbone, neck and head may be computed in."""


def replace_forwards(model: nn.Module, dtype: torch.dtype, compile: bool | Mapping[str, Any],
                     channels_last: bool) -> None:
    """Put faster functions in the place of the forwards of backbone, neck and head.

    Args:
        model: A detector or segmentor, which is changed.
        dtype: One of ``DTYPES``.
        compile: Whether ``torch.compile`` compiles them; or its options.
        channels_last: Whether channels come last in memory.
    """
    host_operators = [module for module in model.modules() if _is_host_operator(module)]
    for module in (*host_operators, *(_kernel_branches(model) if dtype != torch.float32 else ())):
        module.forward = _Float32(module.forward)
    parts = list(_parts(model))
    if channels_last:
        within = {id(module) for operator in host_operators for module in operator.modules()}
        for part, _, _ in parts:
            for module in part.modules():
                if isinstance(module, nn.Conv2d) and id(module) not in within:
                    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for part, name, finish in parts:
        function = getattr(part, name)
        if compile is not False:
            function = torch.compile(function, **({} if compile is True else compile))
        setattr(part, name, _Part(function, dtype, channels_last, finish))


def _parts(model: nn.Module) -> Iterator[tuple[nn.Module, str, Callable[[Any], Any] | None]]:
    """Modules that run faster, the methods by which they are called, and what makes plain tensors of what they return,
    where others read it.
    """
    heads = getattr(model, 'decode_head', None)
    found = [(_stock(head), 'forward') for head in (heads if isinstance(heads, nn.ModuleList) else [heads])
             if isinstance(head, BaseDecodeHead | IterativeDecodeHead)]
    head = getattr(model, 'panoptic_head', None)
    if isinstance(head, KernelIterHead):
        found.append((head, 'stages'))  # what both its forward and its predict begin with
    features = [module for name in ('backbone', 'neck') if isinstance(module := getattr(model, name, None), nn.Module)]
    for module in features:
        yield module, 'forward', _all_plain if not found and module is features[-1] else None
    for module, name in found:
        yield module, name, _updates_plain if name == 'stages' else _all_plain


def _stock(head: nn.Module) -> nn.Module:
    """The head whose forward all of mmseg's functions call, K-Net's stages included."""
    return head.kernel_generate_head if isinstance(head, IterativeDecodeHead) else head


class _Part:
    """The forward of a part, under autocast and on images with channels last."""

    def __init__(self, function: Callable[..., Any], dtype: torch.dtype, channels_last: bool,
                 finish: Callable[[Any], Any] | None) -> None:
        self.function = function
        self.dtype = dtype
        self.channels_last = channels_last
        self.finish = finish

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.channels_last:
            args, kwargs = tree_map(_to_channels_last, (args, kwargs))
        if self.dtype == torch.float32:
            outputs = self.function(*args, **kwargs)
        else:
            tensors: list[Tensor] = []
            tree_map(lambda each: tensors.append(each) if isinstance(each, Tensor) else None, (args, kwargs))
            with torch.autocast(tensors[0].device.type, self.dtype):
                outputs = self.function(*args, **kwargs)
        return outputs if self.finish is None else self.finish(outputs)


def _all_plain(outputs: Any) -> Any:
    return tree_map(_to_plain, outputs)


def _updates_plain(outputs: tuple[Any, Sequence[Any]]) -> tuple[Any, Any]:
    """What ``KernelIterHead.stages`` returns, of which a prediction never reads the proposals."""
    proposals, updates = outputs
    return proposals, _all_plain(updates)


def _kernel_branches(model: nn.Module) -> Iterator[nn.Module]:
    """What works on the kernels alone, which is cheap; rounded scores would be equal, and the first kernel win."""
    for stage in model.modules():
        if isinstance(stage, KernelUpdateHead):
            for branch in (stage.interaction, stage.mask_fcs, stage.fc_mask, stage.classifier):
                if branch is not None:
                    yield branch


class _Float32:
    """A forward in contiguous float32, whatever is around it.

    mmcv's operators take memory to be contiguous, silently, and do not know every data type.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = tree_map(_to_plain, (args, kwargs))
        device = next((each.device.type for each in (*args, *kwargs.values()) if isinstance(each, Tensor)), 'cpu')
        with torch.autocast(device, enabled=False):
            return self.function(*args, **kwargs)


def _is_host_operator(module: nn.Module) -> bool:
    return any(kind.__module__.startswith('mmcv.ops.') for kind in type(module).__mro__)


def _to_channels_last(value: Any) -> Any:
    is_map = isinstance(value, Tensor) and value.dim() == 4
    return value.contiguous(memory_format=torch.channels_last) if is_map else value


def _to_plain(value: Any) -> Any:
    """A tensor of floating-point numbers as contiguous float32; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    return (value.float() if value.dtype in DTYPES else value).contiguous()
