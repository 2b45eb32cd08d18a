"""Activation checkpointing: recompute cheap intermediates in the backward pass instead of storing them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

__all__ = ['checkpointed', 'has_statistics']


def checkpointed(function: Callable[..., Any], *args: Any, parts: nn.Module | None = None) -> Any:
    """Call ``function(*args)`` and keep only the arguments for the backward pass, which calls it again.

    The second call stops once it has restored what the backward pass needs, so it does not repeat the last operation.
    If ``parts``, the modules that the function calls, update running statistics, all intermediates are kept as usual,
    because a second call would update the statistics twice.
    """
    if not torch.is_grad_enabled() or (parts is not None and has_statistics(parts)):
        return function(*args)
    return checkpoint(function, *args, use_reentrant=False)


def has_statistics(module: nn.Module) -> bool:
    """Whether a forward pass in training mode updates running statistics, as batch norm does."""
    return any(part.training and getattr(part, 'track_running_stats', False) for part in module.modules())
