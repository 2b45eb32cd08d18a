"""Memory for time: what is cheap to make again is not kept for the backward pass."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

__all__ = ['has_statistics', 'checkpointed']


def checkpointed(function: Callable[..., Any], *args: Any, parts: nn.Module | None = None) -> Any:
    """Call a function of which the backward pass keeps the arguments alone; it is called again there.

    Exact. The second call ends as soon as everything is there that the backward pass needs, so what only its last
    operation computes is not computed twice.

    Args:
        function: What to call.
        *args: With what.
        parts: Modules that it calls. Where their calls leave something behind, everything is kept as usual.
    """
    if not torch.is_grad_enabled() or (parts is not None and has_statistics(parts)):
        return function(*args)
    return checkpoint(function, *args, use_reentrant=False)


def has_statistics(module: nn.Module) -> bool:
    """Whether a second call in training would change what the module remembers, as that of a batch norm does."""
    return any(part.training and getattr(part, 'track_running_stats', False) for part in module.modules())
