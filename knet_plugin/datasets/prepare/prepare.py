"""From what people have to a prepared folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from rich.console import Console
from rich.progress import track

from knet_plugin.datasets.description import DataDescription
from knet_plugin.datasets.image_files import Header, read_header
from knet_plugin.datasets.names import first_few
from knet_plugin.datasets.prepare.classes import Classes, choose_classes
from knet_plugin.datasets.prepare.formats import FORMATS, detect_format
from knet_plugin.datasets.prepare.output import check_output
from knet_plugin.datasets.prepare.pictures import draw_sample
from knet_plugin.datasets.prepare.sample import Options, Reading, Region, Sample, Source, turn
from knet_plugin.datasets.prepare.split import split_samples
from knet_plugin.datasets.prepare.writer import SplitWriter
from knet_plugin.datasets.whole_folder import whole_folder

__all__ = ['Prepared', 'prepare']

_NUM_PICTURES = 5
_MOST_FAULTS = 10  # after which reading stops
_MOST_CLASSES = 255  # of label maps, in which 255 is ignored


@dataclass
class Prepared:
    """What was written.

    Attributes:
        description: Of the folder.
        format: Key of the format that was read.
        images: Number of images of each split.
        counts: Objects of each thing, and images with each stuff, of each split.
        notes: What the user should know.
    """

    description: DataDescription
    format: str
    images: dict[str, int]
    counts: dict[str, dict[str, int]]
    notes: list[str]


def prepare(sources: Sequence[Source], out: str | os.PathLike[str], options: Options, val: float | None = None,
            seed: int = 0, task: str | None = None, force: bool = False) -> Prepared:
    """Read annotated images in any of ``FORMATS`` and write a prepared folder.

    Args:
        sources: Folders of images and their annotations, from ``find_sources``.
        out: The folder, which appears when it is complete.
        options: Classes and format.
        val: Share of the images for validation. None: as ``sources`` or folders of images say, otherwise 0.2.
        seed: Of the split.
        task: Default task of the data.
        force: Replace a prepared folder.

    Raises:
        ValueError: An input is missing, unreadable or contradictory, an option does not fit, or ``out`` may not be
            written.
    """
    folder = Path(out).absolute()
    check_output(folder, force, [path.absolute() for source in sources for path in (source.images, source.annotations)])
    key = detect_format(sources[0], options) if options.format == 'auto' else options.format
    reading = FORMATS[key][1](sources, options)
    if not reading.names:
        raise ValueError(f'{sources[0].annotations}: there is no object')
    classes = choose_classes(reading, options)
    splits = split_samples(reading, val, seed)
    _check_names(splits, with_maps=bool(classes.stuff))
    description = _describe(folder, classes, task)
    with whole_folder(folder, force) as draft:
        writers = _write(replace(description, root=draft), splits, classes.fill, reading)
        _check_objects(description, writers, reading, sources[0])
    counts = {split: {name: writer.count[name] for name in description.classes} for split, writer in writers.items()}
    reading.note(reading.turned, 'photos are mirrored or turned by EXIF data, but perhaps not their annotations; if '
                 'these do not fit, save the photos upright and without EXIF data')
    notes = [*reading.notes, *(f'{what} ({count} times)' for what, count in reading.counted.most_common())]
    for split, of_class in counts.items():
        if absent := [name for name, count in of_class.items() if not count]:
            notes.append(f'no image in {split} has {first_few(absent, 10)}')
    return Prepared(description, key, {split: writer.num_images for split, writer in writers.items()}, counts, notes)


def _check_objects(description: DataDescription, writers: dict[str, SplitWriter], reading: Reading,
                   source: Source) -> None:
    """Refuse things of which no image has any."""
    things = description.things
    if things and not any(writer.count[name] for writer in writers.values() for name in things):
        why = first_few([what for what, _ in reading.counted.most_common()])
        raise ValueError(f'{source.annotations}: no image has an object of {first_few(things)}; look at the values of '
                         f'the annotations, and at --classes and --format{f" ({why})" if why else ""}')


def _describe(folder: Path, classes: Classes, task: str | None) -> DataDescription:
    number = len(classes.things + classes.stuff)
    if classes.stuff and number > _MOST_CLASSES:
        raise ValueError(f'there are {number} classes, but label maps hold {_MOST_CLASSES}; choose some with --classes')
    default = 'instance' if not classes.stuff else 'panoptic' if classes.things else 'semantic'
    try:
        return DataDescription(folder, task or default, classes.things, classes.stuff)
    except ValueError as error:
        needed = '; name stuff with --stuff, for example --stuff background' if task and not classes.stuff else ''
        raise ValueError(f'{error}{needed}') from None


def _check_names(splits: dict[str, list[Sample]], with_maps: bool) -> None:
    """Refuse images that would overwrite each other, or, in case of ``with_maps``, each other's PNG."""
    for samples in splits.values():
        files: dict[PurePosixPath, Sample] = {}
        for sample in samples:
            name = PurePosixPath(sample.name)
            other = files.setdefault(name.with_suffix('') if with_maps else name, sample)
            if other is not sample:
                raise ValueError(f'{other.image} and {sample.image} have the same name; rename one of them')


def _write(description: DataDescription, splits: dict[str, list[Sample]], fill: str | None,
           reading: Reading) -> dict[str, SplitWriter]:
    """Write everything into ``description.root``; faults of files are collected, so that one run names them all."""
    writers = {split: SplitWriter(description, split, fill) for split in splits}
    console = Console(stderr=True)
    faults: list[str] = []
    for split, samples in splits.items():
        num_pictures = 0
        for i, sample in enumerate(track(samples, split, console=console, disable=not console.is_terminal)):
            try:
                header = read_header(sample.image, decode=True)
                regions = _read_regions(sample, header, description.classes, reading)
            except (ValueError, OSError) as error:
                faults.append(str(error))
                if len(faults) == _MOST_FAULTS:
                    break
                continue
            segments = writers[split].add(sample, header.size, regions)
            is_due = num_pictures < _NUM_PICTURES and i >= num_pictures * len(samples) // _NUM_PICTURES
            if split == 'train' and is_due and regions:
                draw_sample(description, sample, header.size, regions, segments)
                num_pictures += 1
    if faults:
        more = ' (and perhaps more)' if len(faults) == _MOST_FAULTS else ''
        raise ValueError('\n  '.join([f'{len(faults)} files cannot be used{more}:', *faults] if faults[1:] else faults))
    for writer in writers.values():
        writer.close()
    description.write()
    return writers


def _read_regions(sample: Sample, header: Header, classes: Sequence[str], reading: Reading) -> list[Region]:
    """Read the regions of ``classes`` in an image, without those that have no pixel."""
    from pycocotools import mask as mask_utils

    size, regions = header.size, []
    for region in _turned_like(sample.image, header, sample.regions(), reading):
        found = tuple(region.rle['size'])
        if found != size:
            turned = '; it is turned, but the photo has no EXIF data that turn it' if found == size[::-1] else ''
            raise ValueError(f'{sample.image}: {size[1]} x {size[0]} pixels, but its annotation has {found[1]} x '
                             f'{found[0]}{turned}')
        if mask_utils.area(region.rle):
            if region.name is None or region.name in classes:
                regions.append(region)
        else:
            reading.counted[f'left out: a region of {region.name!r} without a pixel'] += 1
    return regions


def _turned_like(image: Path, header: Header, regions: list[Region], reading: Reading) -> list[Region]:
    """Turn regions that all have the rows and columns of the file, as EXIF data turn the image."""
    sizes, size, how = {tuple(region.rle['size']) for region in regions}, header.size, header.orientation
    if not sizes or how < 2:
        return regions
    if ambiguous := how < 5 or size[0] == size[1]:  # the size of the annotation does not tell
        reading.turned.append(image.name)
    if ambiguous or sizes != {size[::-1]}:
        return regions
    reading.counted['annotation turned as EXIF data turn its photo'] += 1
    return [replace(region, rle=turn(region.rle, how)) for region in regions]
