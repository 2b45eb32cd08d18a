"""Label maps: every pixel of an image has the value, or the colour, of its class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from knet_plugin.datasets.names import first_few
from knet_plugin.datasets.prepare.files import list_files, other_files, read_map
from knet_plugin.datasets.prepare.pairs import pair
from knet_plugin.datasets.prepare.sample import Options, Reading, Region, Sample, Source, encode_map

__all__ = ['read_label_maps']

_MOST_VALUES = 1024  # in all maps; more is a photo, or instance masks
_GREY = 65793  # the colour of grey value 1


def read_label_maps(sources: Sequence[Source], options: Options) -> Reading:
    """Read label maps; see ``_values_of_classes`` for their values."""
    files: dict[Path, Path] = {}  # image: map
    reading = Reading([])
    for source in sources:
        pairs = pair(list_files(source.images), list_files(source.annotations))
        for image, maps in pairs.masks.items():
            if len(maps) > 1:
                raise ValueError(f'{source.images / image}: {len(maps)} label maps have its name: {first_few(maps)}')
            files[source.images / image] = source.annotations / maps[0]
        pairs.note(reading, other_files(source.images))
        reading.samples += [Sample(source.images / image, str(image), source.split, list) for image in pairs.masks]
    if not files:
        raise ValueError(f'{sources[0].annotations}: no label map has the name of an image in '
                         f'{sources[0].images}{other_files(sources[0].images)}')
    found, coloured = _scan(list(files.values()))
    if coloured:
        options = replace(options, ignore=())  # 255 would be a blue
    classes = _values_of_classes(found, coloured, options, reading.notes)
    reading.names = list(dict.fromkeys(classes.values()))
    reading.stuff = reading.names
    reading.samples = [Sample(each.image, each.name, each.split,
                              partial(_regions, files[each.image], classes, coloured, options.ignore))
                       for each in reading.samples]
    return reading


def _scan(files: Sequence[Path]) -> tuple[list[int], bool]:
    """Return the sorted values of all maps, and whether they are colours."""
    found: dict[bool, set[int]] = {False: set(), True: set()}
    for file in files:
        values, coloured = read_map(file)
        found[coloured].update(np.unique(values).tolist())
        if len(found[coloured]) > _MOST_VALUES:
            raise ValueError(f'{file}: more than {_MOST_VALUES} different values; label maps have one for each class')
    if found[True]:
        return sorted(found[True].union(value * _GREY for value in found[False])), True
    return sorted(found[False]), False


def _values_of_classes(found: Sequence[int], coloured: bool, options: Options, notes: list[str]) -> dict[int, str]:
    """Decide which class each value is.

    - ``NAME=VALUE`` or ``NAME=R,G,B``: as it says; all other values are ignored.
    - One name is the class of the only value beside 0, the background; so are all names if ``--stuff`` names that.
    - Names alone are the classes 0, 1, 2, ... (1, 2, ... if 0 is ignored), if no value is larger.
    - If there are exactly as many values as names, they have their order; 255 is a value then, if all names need it.

    Args:
        found: The sorted values of all maps.
        coloured: Whether they are colours.
        options: Of the user.
        notes: Gets a line for each decision that the user should see.

    Raises:
        ValueError: None of that fits.
    """
    shown = first_few([_shown(value, coloured) for value in found], 12)
    if any('=' in name for name in options.classes):
        given = dict(_explicit(each) for each in options.classes)
        others = [_shown(value, coloured) for value in found if value not in given and value not in options.ignore]
        if others:
            notes.append(f'values {first_few(others, 12)} have no class in --classes: their pixels are ignored')
        return given
    classes = _beside_background(found, options)
    if classes is None and coloured:
        raise ValueError(f'the label maps are in colour ({shown}): give each class its colour, for example '
                         f'--classes NAME={_shown(found[-1], True).strip("()")} ...')
    if not options.classes:
        raise ValueError(f'--classes: the label maps have the values {shown}; name their classes in that order')
    classes = classes or _in_order(found, options)
    if classes is None:
        plain = [value for value in found if value not in options.ignore]
        raise ValueError(f'--classes has {len(options.classes)} names, but the label maps have the values {shown} '
                         f'({len(plain)} without {first_few(list(options.ignore))}, which is ignored). Name them all '
                         'in that order; or give values: NAME=VALUE; or leave values out: --ignore VALUE')
    meanings = [f'{_shown(value, coloured)} is {name}' for value, name in classes.items()]
    notes.append(f'values of the label maps: {first_few(meanings, 20)}')
    if 0 in found and 0 not in classes and 0 not in options.ignore and not options.stuff:
        notes.append('value 0 is no class: its pixels are ignored; --stuff NAME makes them a class')
    return classes


def _beside_background(found: Sequence[int], options: Options) -> dict[int, str] | None:
    """Return the class of each value if 0 is the background, which has no name in ``--classes``."""
    names = options.classes
    if 0 in options.ignore or not (len(names) == 1 or (names and options.stuff and 0 in found)):
        return None
    others = [value for value in found if value]
    values = [value for value in others if value not in options.ignore]
    if len(names) == 1 and not values:
        values = others  # {0, 255}: the mask of one class
    return dict(zip(values, names, strict=True)) if len(values) == len(names) else None


def _in_order(found: Sequence[int], options: Options) -> dict[int, str] | None:
    """Return the class of each value if names and values have one order."""
    names = options.classes
    plain = [value for value in found if value not in options.ignore]
    start = int(0 in options.ignore)
    if len(names) == 1 and not start:
        return None  # 0 would be the class
    if plain and plain[-1] < start + len(names) and not len(plain) < len(found) == len(names):
        return dict(enumerate(names, start))
    return next((dict(zip(values, names, strict=True)) for values in (plain, found) if len(values) == len(names)), None)


def _explicit(text: str) -> tuple[int, str]:
    """Read ``NAME=VALUE`` or ``NAME=R,G,B``."""
    name, _, value = text.rpartition('=')
    try:
        numbers = [int(each) for each in value.split(',')]
    except ValueError:
        numbers = []
    if not name or len(numbers) not in (1, 3) or min(numbers) < 0:
        raise ValueError(f'--classes {text}: needs NAME=VALUE or NAME=R,G,B, as all other classes do')
    return (numbers[0] if len(numbers) == 1 else numbers[0] * 65536 + numbers[1] * 256 + numbers[2]), name


def _shown(value: int, coloured: bool) -> str:
    return f'({value >> 16},{value >> 8 & 255},{value & 255})' if coloured else str(value)


def _regions(file: Path, classes: Mapping[int, str], coloured: bool, ignore: Sequence[int]) -> list[Region]:
    values, has_colours = read_map(file)
    encoded = encode_map(values * _GREY if coloured and not has_colours else values)
    return [Region(classes.get(value), rle) for value, rle in encoded.items() if value in classes or value in ignore]
