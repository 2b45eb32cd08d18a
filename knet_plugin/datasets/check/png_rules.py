"""Rules on the PNGs of panoptic annotations."""

import os
from collections.abc import Collection

from knet_plugin.datasets.check.files import Annotations, Files
from knet_plugin.datasets.check.image_rules import spread
from knet_plugin.datasets.check.report import Report
from knet_plugin.datasets.check.sources import Source
from knet_plugin.datasets.names import first_few
from knet_plugin.datasets.panoptic_png import read_segment_ids

__all__ = ['check_pngs', 'read_pngs']


def check_pngs(source: Source, file: Annotations, files: Files, report: Report, limit: int) -> None:
    """Look for the PNG of every image where the data set will, and read at most ``limit``."""
    folder = source.dataset.data_prefix.get('seg')
    if not folder:
        report.error('data_prefix.seg, the folder of the panoptic PNGs, is not set', file.path)
        return
    if without := [image['file_name'] for number, image in file.images.items() if number not in file.png]:
        report.warn(f'{len(without)} images have no annotation: {first_few(without)}', file.path)
    other = [name for number, name in file.png.items()
             if name != file.images[number]['file_name'].replace('.jpg', '.png')]
    if other and not source.ours:
        report.error(f'{len(other)} images have a PNG that is not called as the image with .jpg replaced by .png '
                     f'({first_few(other)}); use knet_plugin.PanopticDataset, which takes the name from the file',
                     file.path)
        return
    ours = source.uses_ours('LoadPanopticAnnotations')
    read_pngs(file, folder, source.classes, ours, '', files, report, limit)


def read_pngs(file: Annotations, folder: str, classes: Collection[str], ours: bool, where: str, files: Files,
              report: Report, limit: int) -> None:
    """Report PNGs in ``folder`` that are missing or cannot be used, and segments of the classes without a pixel.

    Findings begin with ``where``. Segments without a pixel are errors unless ``ours`` reads the PNGs.
    """
    paths = {number: os.path.join(folder, name) for number, name in file.png.items()}
    if missing := files.missing(list(paths.values())):
        report.error(f'{where}{len(missing)} of {len(paths)} panoptic PNGs are missing: {first_few(missing)}',
                     folder)
    known = {category['id'] for category in file.categories if category['name'] in classes}
    gone = set(missing)
    broken: list[str] = []
    absent: list[str] = []
    foreign: list[str] = []
    for number, path in spread([each for each in paths.items() if each[1] not in gone], limit):
        image = file.images[number]
        listed = [each['id'] for each in file.objects[number] if each['category_id'] in known]
        try:
            ids = read_segment_ids(path, listed if ours else ())
        except ValueError as error:
            broken.append(str(error).removeprefix('seg_map_path '))
            continue
        if ids.shape != (image['height'], image['width']):
            broken.append(f'{path}: size {ids.shape} (height, width), not {(image["height"], image["width"])}')
            continue
        runs = ids.ravel()
        found = {int(runs[-1]), *runs[:-1][runs[1:] != runs[:-1]].tolist()}  # the last of each run of equal ids
        lacking = [f'{each} of {path}' for each in listed if each not in found]
        (absent if len(lacking) < len(listed) else foreign).extend(lacking)
    if broken:
        report.error(f'{where}{len(broken)} panoptic PNGs cannot be used: {first_few(broken)}', folder)
    if foreign:
        report.error(f'{where}{len(foreign)} segments have no pixel with their id, and neither has another '
                     f'segment of their images: {first_few(foreign)}', file.path)
    if absent:
        (report.warn if ours else report.error)(
            f'{where}{len(absent)} segments have no pixel with their id: {first_few(absent)}; '
            'knet_plugin.LoadPanopticAnnotations and knet_plugin.PanopticMetric skip them', file.path)
