"""Shapes on disk, in the formats that mmdet's and mmseg's stock data set classes read.

::

    root/
        manifest.json                          what was asked for
        {train,val}/000000.jpg
        annotations/
            instances_{train,val}.json         COCO instances; masks are compressed RLE of the visible pixels
            panoptic_{train,val}.json          COCO panoptic
            panoptic_{train,val}/000000.png    segment id = R + 256 G + 256^2 B, 0 is void
            semantic_{train,val}/000000.png    as ADE20K: 0 is unlabelled, classes from 1 (``reduce_zero_label=True``)

Category ids are the same in all of them: things first, then stuff, from 1. The directory appears under its name only
when it is complete.
"""

import json
import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

from knet_plugin.datasets.shapes.make import GENERATOR_VERSION, check_object_sizes
from knet_plugin.datasets.shapes.formats import SPLITS, dump_json, write_split
from knet_plugin.datasets.shapes.style import Style

__all__ = ['make_shapes']

_MIN_SIZE = 32
_MANIFEST = 'manifest.json'


@dataclass(frozen=True)
class _Manifest:
    """Everything that the pixels of a data set depend on."""

    num_train: int
    num_val: int
    size: tuple[int, int]  # height, width
    seed: int
    ambiguity: float
    hue: float
    min_object: float
    generator_version: int = GENERATOR_VERSION


def make_shapes(root: str | os.PathLike[str],
                num_train: int = 800,
                num_val: int = 200,
                size: int | tuple[int, int] = 128,
                seed: int = 0,
                workers: int | None = None,
                ambiguity: float = Style.ambiguity,
                hue: float = Style.hue,
                min_object: float = Style.min_object,
                overwrite: bool = False) -> None:
    """Make the data set, unless the same one is already there.

    Image ``i`` of a split depends on ``seed``, ``size``, ``ambiguity``, ``hue`` and ``min_object`` only, not on how
    many images there are nor on who draws them. The directory appears under its name only when it is complete, so that
    an interrupted call leaves nothing to be mistaken for a data set, and several processes may ask for the same one at
    once.

    Args:
        root: Directory of the data set; created, with its parents.
        num_train: Number of training images.
        num_val: Number of validation images.
        size: Side of the images in pixels, or (height, width); at least 32.
        seed: Not negative.
        workers: Processes to draw with, 0 for drawing in this one; by default one for each CPU this process may use.
        ambiguity: How little the colour of a pixel tells without the rest of its image, from 0; see
            :mod:`knet_plugin.datasets.shapes.make`.
        hue: How strongly every class has its own colour, from 0.
        min_object: Diameter of the smallest objects in pixels, above 0 and at most that of the largest: 0.7 of the
            shorter side of the images.
        overwrite: Replace a different Shapes data set at ``root``. Other directories are never replaced.

    Raises:
        ValueError: An argument is out of its range.
        FileExistsError: ``root`` holds a different Shapes data set, or something else.
    """
    style = Style(ambiguity, hue, min_object)
    manifest = _Manifest(_checked('num_train', num_train, 0), _checked('num_val', num_val, 0), _checked_size(size),
                         _checked('seed', seed, 0), **asdict(style))
    check_object_sizes(style, manifest.size)
    workers = _available_cpus() if workers is None else _checked('workers', workers, 0)
    root = Path(root).resolve()
    if _is_made(root, manifest, overwrite):
        return

    root.parent.mkdir(parents=True, exist_ok=True)
    draft = root.with_name(f'.{root.name}.{uuid.uuid4().hex}')
    draft.mkdir()
    try:
        for split, count in zip(SPLITS, (manifest.num_train, manifest.num_val), strict=True):
            write_split(draft, split, count, manifest.size, manifest.seed, style, workers)
        dump_json(asdict(manifest), draft / _MANIFEST)
        _publish(draft, root, manifest, overwrite)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _checked(name: str, value: int, lowest: int) -> int:
    if not isinstance(value, Integral) or value < lowest:
        raise ValueError(f'{name} must be an integer of at least {lowest}, got {value!r}')
    return int(value)  # numpy's integers are no JSON


def _checked_size(size: int | tuple[int, int]) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, Integral) else size
    if not isinstance(pair, Sequence) or len(pair) != 2:
        raise ValueError(f'size must be an integer or (height, width), got {size!r}')
    return _checked('size', pair[0], _MIN_SIZE), _checked('size', pair[1], _MIN_SIZE)


def _available_cpus() -> int:
    # Not all CPUs of the machine may be ours, and not all systems can say.
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _is_made(root: Path, manifest: _Manifest, overwrite: bool) -> bool:
    """Whether the data set is at ``root``; if not, ``root`` is free to be written.

    Raises:
        FileExistsError: ``root`` is not free.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    found = _read_manifest(root / _MANIFEST)
    if found is None:
        raise FileExistsError(f'{root} exists and is not a Shapes data set (it has no {_MANIFEST} of one)')
    wanted = json.loads(json.dumps(asdict(manifest)))  # as it reads back: with lists for tuples
    different = [f'{name} is {found.get(name)!r} there, but {value!r} was asked for'
                 for name, value in wanted.items() if found.get(name) != value]
    if different and not overwrite:
        raise FileExistsError(f'{root} holds a different Shapes data set: {"; ".join(different)}. '
                              'Choose another directory, or overwrite it.')
    return not different


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """Read the manifest of a Shapes data set; None if there is none, or one of something else."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and 'generator_version' in found else None


def _publish(draft: Path, root: Path, manifest: _Manifest, overwrite: bool) -> None:
    """Give the complete data set its name, unless another process was faster."""
    if _is_made(root, manifest, overwrite):
        return
    if root.exists() and any(root.iterdir()):
        retired = root.rename(draft.with_name(f'{draft.name}.old'))
        draft.rename(root)
        shutil.rmtree(retired)
        return
    try:
        if root.exists():
            root.rmdir()  # not every system lets a directory take the place of an empty one
        draft.rename(root)
    except OSError:
        if not _is_made(root, manifest, overwrite):
            raise
