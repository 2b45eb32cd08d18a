"""What the readers of all formats give to the writer: images, and the regions of one image at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from knet_plugin.datasets.names import first_few

__all__ = ['Options', 'Reading', 'Region', 'Sample', 'Source', 'encode_map', 'turn']


@dataclass(frozen=True)
class Options:
    """What the user says about the data.

    Attributes:
        classes: Names, in the order of their values or ids where the data has no names. ``NAME=VALUE`` and
            ``NAME=R,G,B`` give the value or colour of a class in label maps.
        stuff: Names of stuff. One that the data does not have is given to all pixels without a region.
        ignore: Values of label maps that are no class.
        format: A key of ``FORMATS``, or 'auto'.
    """

    classes: tuple[str, ...] = ()
    stuff: tuple[str, ...] = ()
    ignore: tuple[int, ...] = (255,)
    format: str = 'auto'


@dataclass(frozen=True)
class Source:
    """A folder of images, their annotations (a folder or a file), and their split, if that is decided."""

    images: Path
    annotations: Path
    split: str | None = None


@dataclass(frozen=True)
class Region:
    """An object or a piece of stuff.

    Attributes:
        name: Its class; None for pixels that are to be ignored.
        rle: Compressed run-length encoding of pycocotools.
        crowd: Whether it is a group of objects.
    """

    name: str | None
    rle: dict[str, Any]
    crowd: bool = False


@dataclass(frozen=True)
class Sample:
    """An image and its annotation.

    Attributes:
        image: The file.
        name: Its path below the folder of images, with '/'.
        split: 'train', 'val' or None, if it is not decided.
        regions: Reads the annotation. Raises a ``ValueError`` that names the file.
    """

    image: Path
    name: str
    split: str | None
    regions: Callable[[], list[Region]]


@dataclass
class Reading:
    """What a reader found.

    Attributes:
        names: Classes in the order of their labels.
        stuff: Those of ``names`` that the format itself marks as stuff.
        samples: Images in any order.
        notes: Lines for the user.
        counted: How often something happened that the user should know; grows while ``Sample.regions`` are called.
        turned: Photos that EXIF data turn, whose annotations may be turned or not.
    """

    names: list[str]
    stuff: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    turned: list[str] = field(default_factory=list)

    def note(self, names: Sequence[Any], what: str) -> None:
        """Add a line on the files of these ``names``, if there are any."""
        if names:
            self.notes.append(f'{len(names)} {what}: {first_few(names)}')


def encode_map(values: np.ndarray) -> dict[int, dict[str, Any]]:
    """Return the compressed RLE of the pixels of each value in a (H, W) map, in time linear in its pixels."""
    from pycocotools import mask as mask_utils

    flat = values.ravel(order='F')
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    ends = np.append(starts[1:], flat.size)
    order = np.argsort(flat[starts], kind='stable')
    found, first = np.unique(flat[starts][order], return_index=True)
    encoded = {}
    for value, runs in zip(found.tolist(), np.split(order, first[1:]), strict=True):
        edges = np.stack([starts[runs], ends[runs]], axis=1).ravel()
        counts = np.diff(edges, prepend=0, append=flat.size).tolist()  # background and value in turn
        encoded[value] = mask_utils.frPyObjects(dict(size=list(values.shape), counts=counts), *values.shape)
    return encoded


def turn(rle: dict[str, Any], orientation: int) -> dict[str, Any]:
    """Return the RLE turned by an EXIF orientation that exchanges rows and columns, 5 to 8."""
    from pycocotools import mask as mask_utils

    mask = mask_utils.decode(rle).T
    rows, columns = {5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}[orientation]
    return mask_utils.encode(np.asfortranarray(mask[::rows, ::columns]))
