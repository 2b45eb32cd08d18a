"""COCO panoptic: a JSON file and a PNG for each image, whose colours are segment ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from knet_plugin.datasets.panoptic_png import read_segment_ids
from knet_plugin.datasets.prepare.coco import images_of, open_coco
from knet_plugin.datasets.prepare.file_names import FileNames
from knet_plugin.datasets.prepare.files import list_files
from knet_plugin.datasets.prepare.sample import Options, Reading, Region, Sample, Source, encode_map

__all__ = ['read_coco_panoptic']


def read_coco_panoptic(sources: Sequence[Source], options: Options) -> Reading:
    """Read segments of things and stuff; what is stuff, ``isthing`` of the categories or ``options.stuff`` says."""
    reading = Reading([])
    for source in sources:
        file = open_coco(source, options, reading)
        categories = file.data['categories']
        if not options.stuff and any('isthing' not in category for category in categories):
            raise ValueError(f'{source.annotations}: categories have no isthing; name those of stuff: --stuff NAME')
        reading.stuff += [each['name'] for each in categories if not each.get('isthing', 1)]
        names = {category['id']: category['name'] for category in categories}
        annotations = {annotation['image_id']: annotation for annotation in file.data['annotations']}
        folder = _folder_of_maps(source.annotations, [each['file_name'] for each in file.data['annotations']])
        maps = FileNames(list_files(folder), with_folders=True)
        for image, name in images_of(file, source, reading):
            if image['id'] not in annotations:
                reading.counted['left out: an image without panoptic annotation'] += 1
                continue
            annotation = annotations[image['id']]
            png = maps.find(annotation['file_name']) or annotation['file_name']
            regions = partial(_regions, folder / png, annotation['segments_info'], names,
                              reading.counted)
            reading.samples.append(Sample(source.images / name, str(name), source.split, regions))
    return reading


def _folder_of_maps(file: Path, names: Sequence[str]) -> Path:
    """Return the folder that has the PNGs: that with the name of the file, or one beside it."""
    around = [file.with_suffix(''), file.parent]
    for parent in (file.parent, file.parent.parent):
        around += sorted(path for path in parent.iterdir() if path.is_dir())
    for folder in around:
        if (folder / names[0]).is_file() or FileNames(list_files(folder), with_folders=True).find(names[0]):
            return folder
    raise ValueError(f'{file}: there is no PNG {names[0]} in {around[0]}, where it is usually, or beside it')


def _regions(file: Path, segments: Sequence[dict[str, Any]], names: Mapping[Any, str],
             counted: Counter[str]) -> list[Region]:
    encoded = encode_map(read_segment_ids(str(file), [segment['id'] for segment in segments]))
    regions = []
    for segment in segments:
        if (rle := encoded.get(segment['id'])) is None:
            counted['left out: a segment id that no pixel of its PNG has'] += 1
        else:
            regions.append(Region(names[segment['category_id']], rle, bool(segment['iscrowd'])))
    return regions
