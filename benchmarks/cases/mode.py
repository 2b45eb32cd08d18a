"""The parts of a mode: settings, contenders and goals."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

__all__ = ['BEFORE', 'OURS', 'Build', 'Measured', 'Mode']

OURS, BEFORE = 'knet_plugin', 'before'


@dataclass(frozen=True)
class Measured:
    """A contender that is ready to run.

    Attributes:
        step: The function to time.
        forward: The part of the step whose result holds everything that the backward pass needs. None: there is no
            backward pass.
    """

    step: Callable[[], Any]
    forward: Callable[[], Any] | None = None


Build = Callable[[torch.device], Measured]


@dataclass(frozen=True)
class Mode:
    """Contenders that take turns, in several settings.

    Attributes:
        settings: Setting -> contender -> the function that builds it. Every setting has the contender ``OURS``.
        turns: How often each contender runs; a third of it with ``--quick``.
        memory: Whether to measure memory on a CPU too, which needs slow runs under torch's profiler.
        goals: Contender -> quantity (``seconds``, ``kept`` or ``peak``) -> the highest ratio of our figure to the
            contender's that meets the goal.
        before: Whether ``--before`` adds a contender; other clones may lack what is measured.
    """

    settings: Mapping[str, Mapping[str, Build]]
    turns: int
    memory: bool = False
    goals: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    before: bool = True
