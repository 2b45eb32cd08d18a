"""Label maps: every pixel of an image has the value, or the colour, of its class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from knet_plugin.datasets.names import first_few
from knet_plugin.datasets.prepare.files import list_files, read_map
from knet_plugin.datasets.prepare.pairs import pair
from knet_plugin.datasets.prepare.sample import Options, Reading, Region, Sample, Source, encode_map

__all__ = ['read_label_maps']

_MOST_VALUES = 1024  # in all maps; more is a photo, or instance masks
_GREY = 65793  # the colour of grey value 1


def read_label_maps(sources: Sequence[Source], options: Options) -> Reading:
    """Read label maps; see :func:`_values_of_classes` for their values."""
    files: dict[Path, Path] = {}  # image: map
    reading = Reading([])
    for source in sources:
        pairs = pair(list_files(source.images), list_files(source.annotations))
        for image, maps in pairs.masks.items():
            if len(maps) > 1:
                raise ValueError(f'{source.images / image}: {len(maps)} label maps have its name: {first_few(maps)}')
            files[source.images / image] = source.annotations / maps[0]
        reading.notes += pairs.notes()
        reading.samples += [Sample(source.images / image, str(image), source.split, list) for image in pairs.masks]
    if not files:
        raise ValueError(f'{sources[0].annotations}: no label map has the name of an image in {sources[0].images}')
    found, coloured = _scan(list(files.values()))
    classes = _values_of_classes(found, coloured, options, reading.notes)
    reading.names = list(dict.fromkeys(classes.values()))
    reading.stuff = reading.names
    reading.samples = [Sample(each.image, each.name, each.split,
                              partial(_regions, files[each.image], classes, coloured))
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
        classes = dict(_explicit(each) for each in options.classes)
        others = [_shown(value, coloured) for value in found if value not in classes and value not in options.ignore]
        if others:
            notes.append(f'values {first_few(others, 12)} have no class in --classes: their pixels are ignored')
        return classes
    if coloured:
        raise ValueError(f'the label maps are in colour ({shown}): give each class its colour, for example '
                         f'--classes NAME={_shown(found[-1], True).strip("()")} ...')
    names = options.classes
    plain = [value for value in found if value not in options.ignore]
    start = int(0 in options.ignore)
    if not names:
        raise ValueError(f'--classes: the label maps have the values {shown}; name their classes in that order')
    if plain and plain[-1] < start + len(names) and not len(plain) < len(found) == len(names):
        return dict(enumerate(names, start))
    for values in (plain, found):
        if len(values) == len(names):
            classes = dict(zip(values, names, strict=True))
            notes.append('values of the label maps: ' + ', '.join(f'{value} is {classes[value]}' for value in values))
            return classes
    raise ValueError(f'--classes has {len(names)} names, but the label maps have the values {shown} ({len(plain)} '
                     f'without {first_few(list(options.ignore))}, which is ignored). Name them all in that order; or '
                     f'give values: NAME=VALUE; or leave values out: --ignore VALUE')


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


def _regions(file: Path, classes: Mapping[int, str], coloured: bool) -> list[Region]:
    values, has_colours = read_map(file)
    encoded = encode_map(values * _GREY if coloured and not has_colours else values)
    return [Region(classes[value], rle) for value, rle in encoded.items() if value in classes]
