"""How messages list names."""

from collections.abc import Sequence
from typing import Any

__all__ = ['first_few']


def first_few(names: Sequence[Any], most: int = 3) -> str:
    """Return the first names, and how many there are more: 'a, b, c and 5 more'."""
    shown = ', '.join(map(str, names[:most]))
    return shown if len(names) <= most else f'{shown} and {len(names) - most} more'
