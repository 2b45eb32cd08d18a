"""Rules on the PNGs of panoptic annotations."""

import os
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from knet_plugin.datasets.check.files import Annotations, Files
from knet_plugin.datasets.check.image_rules import spread
from knet_plugin.datasets.check.report import Report
from knet_plugin.datasets.check.sources import Source
from knet_plugin.datasets.names import first_few
from knet_plugin.datasets.panoptic_png import read_segment_ids
from knet_plugin.registry import SCOPE

__all__ = ['Reader', 'check_pngs', 'read_pngs']


class Reader(NamedTuple):
    """Our part that skips segments without a pixel, whether the run uses it, and the beginning of findings on it."""

    name: str
    used: bool
    field: str = ''


def check_pngs(source: Source, file: Annotations, files: Files, report: Report, limit: int) -> None:
    """Look for the PNG of every image where the data set will, and read at most ``limit``."""
    folder = source.dataset.data_prefix.get('seg')
    if not folder:
        report.error('data_prefix.seg, the folder of the panoptic PNGs, is not set', file.path)
        return
    if without := [image['file_name'] for number, image in file.images.items() if number not in file.png]:
        report.warn(f'{len(without)} images have no annotation: {first_few(without)}', file.path, len(without))
    if source.ours:
        names = {number: name for number, name in file.png.items() if number in file.images}
    else:  # mmdet's rule, whatever the annotation says
        names = {number: image['file_name'].replace('.jpg', '.png') for number, image in file.images.items()}
        other = [file.images[number]['file_name'] for number, name in file.png.items()
                 if number in names and names[number] != name]
        if other:
            report.error(f'{len(other)} images have a PNG that is not called as the image with .jpg replaced by .png '
                         f'({first_few(other)}); use knet_plugin.PanopticDataset, which takes the name from the file',
                         file.path, len(other))
            return
    paths = {number: os.path.join(folder, name) for number, name in names.items()}
    missing = files.missing(list(paths.values()))
    if missing:
        report.error(f'{len(missing)} of {len(names)} panoptic PNGs are missing: {first_few(missing)}', folder,
                     len(missing))
    kind = (source.transform('LoadPanopticAnnotations') or {}).get('type', '')
    ours = (kind if isinstance(kind, str) else kind.__module__).startswith(SCOPE)
    gone = set(missing)
    read_pngs(file, dict(spread([each for each in paths.items() if each[1] not in gone], limit)), source.classes,
              folder, Reader('knet_plugin.LoadPanopticAnnotations', ours), report)


def read_pngs(file: Annotations, paths: Mapping[Any, str], classes: Collection[str], folder: str, reader: Reader,
              report: Report) -> None:
    """Report PNGs that cannot be used, and segments of the classes without a pixel in theirs.

    ``paths`` are those of the PNGs by id of the image; ``folder`` is the one that they are in.
    """
    known = {category['id'] for category in file.categories if category['name'] in classes}
    broken, absent, foreign = [], [], []
    for number, path in paths.items():
        image = file.images.get(number)
        if image is None:
            continue
        listed = [each['id'] for each in file.objects.get(number, ()) if each['category_id'] in known]
        try:
            ids = read_segment_ids(path, listed if reader.used else ())
        except ValueError as error:
            broken.append(str(error).removeprefix('seg_map_path '))
            continue
        if ids.shape != (image['height'], image['width']):
            broken.append(f'{path}: size {ids.shape} (height, width), not {(image["height"], image["width"])}')
            continue
        runs = ids.ravel()
        found = {int(runs[-1]), *runs[:-1][runs[1:] != runs[:-1]].tolist()}  # the last of each run of equal ids
        lacking = [f'{each} of {path}' for each in listed if each not in found]
        if len(lacking) < len(listed):
            absent += lacking
        else:
            foreign += lacking
    if broken:
        report.error(f'{reader.field}{len(broken)} panoptic PNGs cannot be used: {first_few(broken)}', folder,
                     len(broken))
    if foreign:
        report.error(f'{reader.field}{len(foreign)} segments have no pixel with their id, and neither has another '
                     f'segment of their images: {first_few(foreign)}', file.path, len(foreign))
    if absent:
        message = f'{reader.field}{len(absent)} segments have no pixel with their id: {first_few(absent)}; '
        if reader.used:
            report.warn(f'{message}{reader.name} skips them', file.path, len(absent))
        else:
            report.error(f'{message}correct the file, or use {reader.name}, which skips them', file.path, len(absent))
