"""Rules on label maps for semantic segmentation, and their census."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from knet_plugin.datasets.check.class_rules import check_model_classes, semantic_heads
from knet_plugin.datasets.check.files import Files
from knet_plugin.datasets.check.image_rules import check_images, spread
from knet_plugin.datasets.check.report import Census, Report
from knet_plugin.datasets.check.sources import Source
from knet_plugin.datasets.names import IMAGE_SUFFIXES, first_few

__all__ = ['check_label_maps']



@dataclass
class _Values:
    """What the label maps hold: pixels by value, and maps that cannot be used, by reason and with examples."""

    pixels: Counter[int] = field(default_factory=Counter)
    maps: Counter[int] = field(default_factory=Counter)  # number of maps with the value
    broken: dict[str, list[str]] = field(default_factory=dict)


def check_label_maps(source: Source, model: Mapping, files: Files, report: Report, limit: int) -> None:
    """Check a data set of images and label maps, and add its census. Of the maps, at most ``limit`` are read."""
    dataset = source.dataset
    folder, labels = (dataset.data_prefix.get(key) or '' for key in ('img_path', 'seg_map_path'))
    check_model_classes(model, source, labels or folder, report)
    loader = source.transform('LoadAnnotations') or source.transform('LoadLabels') or {}
    if (reduce := loader.get('reduce_zero_label')) not in (None, dataset.reduce_zero_label):
        report.error(f'reduce_zero_label is {reduce} in {loader["type"]}, but {dataset.reduce_zero_label} in the data '
                     'set; set it in the data set alone', labels)
    if len(source.classes) > source.void:
        report.error(f'{len(source.classes)} classes, but label {source.void} marks pixels without class; load the '
                     'maps with knet_plugin.LoadLabels and set ignore_index=65535 there, in the decode heads, as '
                     'data_preprocessor.seg_pad_val and in the metric', labels)
    if getattr(dataset, 'backend_args', None):
        return
    for name, path in dict(img_path=folder, seg_map_path=labels).items():
        if path and not os.path.isdir(path):
            report.error(f'the folder data_prefix.{name} does not exist', path)
    if dataset.ann_file and not os.path.exists(dataset.ann_file):
        report.error('ann_file, the list of images, does not exist', dataset.ann_file)
    elif os.path.isdir(folder) and os.path.isdir(labels):
        items = dataset.load_data_list()
        _check_suffix(source, folder, {item['img_path'] for item in items}, report)
        if items:
            sizes = check_images(source, [item['img_path'] for item in items], {}, model, files, report, limit)
            expected = {item['seg_map_path']: sizes.get(item['img_path']) for item in items}
            _check_maps(source, model, expected, files, report, limit)


def _check_suffix(source: Source, folder: str, used: set[str], report: Report) -> None:
    """Report images that the data set does not list, because they end in something else than ``img_suffix``."""
    suffix = source.dataset.img_suffix
    if source.dataset.ann_file and used:
        return
    others = Counter(os.path.splitext(name)[1] for _, _, names in os.walk(folder) for name in names
                     if not name.endswith(suffix) and name.lower().endswith(IMAGE_SUFFIXES))
    found = first_few([f'{number} with {ending}' for ending, number in others.most_common()])
    if not used:
        report.error(f'no image ends in img_suffix={suffix!r}; there are {found or "no images"}', folder)
    elif others and os.path.splitext(suffix)[0] == suffix:  # CamVid and Cityscapes have other files beside their images
        report.warn(f'images that do not end in img_suffix={suffix!r} are not used: {found}', folder)


def _check_maps(source: Source, model: Mapping, expected: Mapping[str, Any], files: Files, report: Report,
                limit: int) -> None:
    """Check the maps; ``expected`` has the (width, height) of their images, if known, by their paths."""
    folder, paths = source.dataset.data_prefix['seg_map_path'], list(expected)
    missing = files.missing(paths)
    if missing:
        report.error(f'{len(missing)} of {len(paths)} label maps are missing: {first_few(missing)}; check '
                     f'seg_map_suffix={source.dataset.seg_map_suffix!r}', folder)
    gone = set(missing)
    present = [path for path in paths if path not in gone]
    values = _read({path: expected[path] for path in spread(present, limit)})
    for problem, found in values.broken.items():
        report.error(f'{len(found)} label maps {problem}: {first_few(found)}', folder)
    if not values.pixels:
        return
    heads = list(semantic_heads(model).values())
    ignore = heads[0].get('ignore_index', 255) if heads else 255
    census = Census(source.section, images=len(paths), pixels=dict.fromkeys(source.classes, 0), file=folder,
                    sampled=len(present) > limit)
    if census.sampled:
        census.remarks.append(f'{limit} of {len(present)} label maps read, evenly spaced')
    _count(source, values, ignore, census, folder, report)
    report.census.append(census)
    _judge(source, values, ignore, census, folder, report)


def _read(expected: Mapping[str, Any]) -> _Values:
    """Read label maps, and compare their (width, height) with the expected ones."""
    values = _Values()
    for path, wanted in expected.items():
        array = _label_map(path)
        if isinstance(array, str):
            values.broken.setdefault(array, []).append(path)
            continue
        size = array.shape[::-1]
        if size != (wanted or size):
            values.broken.setdefault('have another (width, height) than their image', []).append(
                f'{path} is {size}, not {wanted}')
        found, pixels = np.unique(array, return_counts=True)
        values.maps.update(found.tolist())
        values.pixels.update(dict(zip(found.tolist(), pixels.tolist(), strict=True)))
    return values


def _label_map(path: str) -> Any:
    """The values of a label map (H, W), as mmseg reads them but for their depth, or what is wrong with it."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            array = np.asarray(image)
    except Exception:  # Pillow has many errors for broken files
        return 'cannot be decoded'
    if array.ndim != 2:
        return f'have {array.shape[2]} channels; they must hold labels, not colours'
    return array.astype(np.int64)


def _count(source: Source, values: _Values, ignore: int, census: Census, folder: str, report: Report) -> None:
    """Fill the census with the classes that mmseg's loading makes of the values, and report values without a class."""
    ignored, wrong = 0, []
    for value, pixels in values.pixels.items():
        label = _label(source, value)
        if label == ignore:
            ignored += pixels
        elif 0 <= label < len(source.classes):
            census.pixels[source.classes[label]] += pixels
        elif source.classes:
            wrong.append(value)
    census.ignored = ignored / values.pixels.total()
    deep = sorted(value for value in values.pixels if value > 255) if source.transform('LoadLabels') is None else []
    if deep:
        number = max(values.maps[value] for value in deep)
        report.error(f'at least {number} label maps have values above 255 ({first_few(deep)}), of which mmseg\'s '
                     'LoadAnnotations keeps the lowest 8 bits; load them with knet_plugin.LoadLabels', folder)
    wrong = sorted(set(wrong).difference(deep))
    if wrong:
        number = max(values.maps[value] for value in wrong)
        remark = ', after reduce_zero_label' if source.dataset.reduce_zero_label else ''
        report.error(f'labels must be 0 .. {len(source.classes) - 1} or {ignore} (ignored){remark}, but at least '
                     f'{number} label maps have other values: {first_few(wrong, 10)}; add the classes to '
                     'metainfo and model, or correct the label maps', folder)


def _label(source: Source, value: int) -> int:
    """What mmseg's LoadAnnotations, or our LoadLabels, makes of a value."""
    reduce = source.dataset.reduce_zero_label
    if source.transform('LoadLabels') is None:
        value &= 255
    if value == source.void or value == 65535 or reduce and value == 0:
        return source.void
    value -= reduce
    return (source.dataset.label_map or {}).get(value, value)


def _judge(source: Source, values: _Values, ignore: int, census: Census, folder: str, report: Report) -> None:
    """Report classes without a pixel, and the setting that may be the reason."""
    occurring = [name for name, pixels in census.pixels.items() if pixels]
    never = [name for name in census.pixels if name not in occurring]
    counts = ', '.join(f'{value}: {pixels / values.pixels.total():.1%}'
                       for value, pixels in sorted(values.pixels.items())[:12])
    if not occurring:
        report.error(f'no pixel has a class; values in the label maps: {counts}', folder)
    elif never and (source.section == 'train' or len(occurring) == 1):  # others: check_val_classes
        hint, useless = '', False
        if source.dataset.reduce_zero_label and 0 in values.pixels:
            hint = ('; reduce_zero_label=True ignores the value 0 and makes class 0 of value 1: set it to False if 0 '
                    'is a class')
        elif values.pixels[ignore]:
            hint, useless = (f'; the value {ignore} is ignored: if it marks {never[0]!r}, save it as '
                             f'{source.classes.index(never[0])}'), len(occurring) == 1
        (report.error if useless else report.warn)(
            f'{len(never)} of {len(source.classes)} classes never occur: {first_few(never, 8)}{hint} (values in the '
            f'label maps: {counts})', folder)
