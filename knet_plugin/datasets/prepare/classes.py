"""Which classes are things, which are stuff, and which one fills the rest of an image."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from knet_plugin.datasets.names import first_few
from knet_plugin.datasets.prepare.sample import Options, Reading

__all__ = ['Classes', 'choose_classes']


@dataclass(frozen=True)
class Classes:
    """Classes in the order of their labels; ``fill`` is the stuff of all pixels without region, or None."""

    things: tuple[str, ...]
    stuff: tuple[str, ...]
    fill: str | None


def choose_classes(reading: Reading, options: Options) -> Classes:
    """Decide from what the data has and what the user says.

    ``options.classes`` keeps only these classes, and those of ``options.stuff``.

    Raises:
        ValueError: A name is unknown, repeated, or both class and stuff.
    """
    names = [name.partition('=')[0] if name not in reading.names else name for name in options.classes]
    for option, values in (('--classes', names), ('--stuff', options.stuff)):
        if repeated := sorted({name for name in values if list(values).count(name) > 1}):
            raise ValueError(f'{option} names {first_few(repeated)} more than once')
    if both := [name for name in options.stuff if name in names]:
        raise ValueError(f'--stuff {first_few(both)} is also in --classes: give stuff a name of its own')
    if unknown := [name for name in names if name not in reading.names]:
        close = difflib.get_close_matches(unknown[0], reading.names, n=3, cutoff=0.5)
        raise ValueError(f'--classes {first_few(unknown)}: the data has no such class, but '
                         f'{first_few(close or reading.names, 12)}')
    fills = [name for name in options.stuff if name not in reading.names]
    if len(fills) > 1:
        raise ValueError(f'--stuff {" ".join(fills)}: the data has none of these classes, and only one can be given to '
                         f'all pixels without region; the classes of the data are {first_few(reading.names, 12)}')
    stuff = {*reading.stuff, *options.stuff}
    kept = [name for name in reading.names if not names or name in names or name in options.stuff]
    return Classes(tuple(name for name in kept if name not in stuff),
                   (*(name for name in kept if name in stuff), *fills), fills[0] if fills else None)
