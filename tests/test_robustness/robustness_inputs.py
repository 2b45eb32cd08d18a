"""Inputs that nobody would make on purpose, drawn by hypothesis, and how many of them are tried.

Tests draw few examples, the same ones every time; the slow ones draw more. ``KNET_HOSTILE_SEED`` draws others instead,
``KNET_HOSTILE_FACTOR`` times as many of them. How many were really tried is printed (``pytest -rP`` shows it).
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from torch import Tensor

SEED = os.environ.get('KNET_HOSTILE_SEED')
FACTOR = float(os.environ.get('KNET_HOSTILE_FACTOR', 1))

MASKS = ('noise', 'box', 'pixel', 'whole', 'empty', 'previous')
"""Kinds of masks; 'previous' repeats the one before."""
LABEL_MAPS = ('noise', 'ignored', 'constant', 'halves')
"""Kinds of maps of classes; 'halves' is half ignored."""


def shares(few: int, many: int) -> Any:
    """Parametrises a test over the number of its examples: few in every run, many among the slow tests."""
    return pytest.mark.parametrize('count', [few, pytest.param(many, marks=pytest.mark.slow)])


def try_inputs(check: Callable[[Any], None], inputs: st.SearchStrategy, count: int) -> None:
    """Call ``check`` with at least ``count`` examples of ``inputs``, times the factor."""
    tried, wanted = 0, int(count * FACTOR)

    @settings(max_examples=wanted, derandomize=SEED is None, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))
    @given(inputs)
    def run(example: Any) -> None:
        nonlocal tried
        tried += 1
        check(example)

    try:
        run() if SEED is None else seed(int(SEED))(run)()
    finally:
        print(f'{check.__name__}: {tried} inputs tried')
    assert tried >= wanted, f'only {tried} of {wanted} inputs were tried'


def seeds() -> st.SearchStrategy:
    """Seeds of what hypothesis would draw too slowly."""
    return st.integers(0, 2**32 - 1)


def numbers(*usual: int, rare: int) -> st.SearchStrategy:
    """Mostly one of the usual numbers."""
    return st.sampled_from([*usual * 4, rare])


def make_masks(kinds: list[str], height: int, width: int, generator: torch.Generator) -> Tensor:
    """Masks of these kinds, (G, height, width) of 0 and 1."""
    masks = torch.zeros(len(kinds), height, width, dtype=torch.uint8)
    for i, kind in enumerate(kinds):
        top, left = _below(height, generator), _below(width, generator)
        if kind == 'noise':
            masks[i] = torch.rand(height, width, generator=generator) > torch.rand((), generator=generator)
        elif kind == 'box':
            masks[i, top:top + 1 + _below(height, generator), left:left + 1 + _below(width, generator)] = 1
        elif kind == 'pixel':
            masks[i, top, left] = 1
        elif kind == 'whole':
            masks[i] = 1
        elif kind == 'previous' and i:
            masks[i] = masks[i - 1]
    return masks


def make_label_map(kind: str, num_classes: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """A map of classes, (height, width), where 255 is ignored."""
    labels = torch.randint(num_classes, (height, width), generator=generator)
    if kind == 'ignored':
        labels[:] = 255
    elif kind == 'constant':
        labels[:] = labels[0, 0].clone()
    elif kind == 'halves':
        labels[:, width // 2:] = 255
    return labels


def make_logits(kind: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Logits of a model that has learned nothing yet, or too much.

    Args:
        kind: 'noise', 'equal' (all ties), 'large' (probabilities of exactly 0 and 1), 'never' or 'always'.
        shape: Their shape.
        generator: Random numbers.
    """
    noise = torch.randn(shape, generator=generator)
    return dict(noise=noise, equal=torch.zeros(shape), large=1e4 * noise, never=noise - 1e3, always=noise + 1e3)[kind]


LOGITS = ('noise', 'equal', 'large', 'never', 'always')


def _below(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(limit, (), generator=generator))
