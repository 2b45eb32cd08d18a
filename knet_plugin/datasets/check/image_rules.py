"""Rules on image files: that they exist, can be decoded, and keep their values when the run loads them."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from knet_plugin.datasets.check.files import Files
from knet_plugin.datasets.check.report import Report
from knet_plugin.datasets.check.sources import Source
from knet_plugin.datasets.names import first_few

__all__ = ['LOADERS', 'check_images', 'read_header', 'spread']

LOADERS = ('cv2', 'pillow')  # of LoadImageFromFile, that read what the check reads
_SAMPLED_VALUES = 8
# 3 = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH: three channels of the file's own depth.
_KEEP_DEPTH = "dict(type='LoadImageFromFile', color_type=3, to_float32=True)"
_TIFFS = ("load TIFFs of more than 4 channels with dict(type='LoadImageFromFile', imdecode_backend='tifffile', "
          "color_type='unchanged')")
_ROTATED = range(5, 9)  # EXIF orientations that exchange height and width
_EXIF_ORIENTATION = 274
_CHANNELS = {'1': 1, 'L': 1, 'LA': 4, 'PA': 4, 'RGBA': 4}  # by Pillow's mode, as OpenCV reads it; all others: 3


def spread(items: Sequence, limit: int) -> list:
    """At most ``limit`` of the items, evenly spaced."""
    if len(items) <= limit:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, limit).round().astype(int)]


def check_images(source: Source, paths: list[str], sizes: Mapping[str, tuple[int, int]], model: Mapping, files: Files,
                 report: Report, limit: int) -> None:
    """Look for every image, and into the headers of at most ``limit``.

    ``sizes`` are the (width, height) that the annotations give, by path.
    """
    prefix = source.dataset.data_prefix
    folder = prefix.get('img') or prefix.get('img_path') or ''
    missing = files.missing(paths)
    if missing:
        report.error(f'{len(missing)} of {len(paths)} images are missing: {first_few(missing)}; check data_root and '
                     'data_prefix', folder, len(missing))
    gone = set(missing)
    examples: dict[str, list[str]] = {}
    for path in spread([path for path in paths if path not in gone], limit):
        kind, size = read_header(path)
        examples.setdefault(kind, []).append(path)
        if size and path in sizes and size != tuple(sizes[path]):
            examples.setdefault('size', []).append(f'{path} is {size}, not {tuple(sizes[path])}')
    loader = source.transform('LoadImageFromFile')
    if loader is None or loader.get('imdecode_backend', 'cv2') not in LOADERS:
        return  # the user's own way to load, which may know other formats
    if wrong := examples.pop('unreadable', []):
        advice = _TIFFS if wrong[0].lower().endswith(('.tif', '.tiff')) else 'replace or remove them'
        report.error(f'{len(wrong)} images cannot be decoded: {first_few(wrong)}; {advice}', folder, len(wrong))
    if wrong := examples.pop('size', []):
        report.error(f'{len(wrong)} images have another (width, height) than the annotations say: {first_few(wrong)}',
                     folder, len(wrong))
    for kind, found in examples.items():
        _check_loading(loader, kind, found, model, folder, report)


def read_header(path: str) -> tuple[str, tuple[int, int] | None]:
    """Kind of image, such as '16 bit, 3 channels', and its (width, height) as shown."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            mode, (width, height) = image.mode, image.size
            raw = str(image.tile[0][-1]) if image.tile else ''
            if image.getexif().get(_EXIF_ORIENTATION) in _ROTATED:
                width, height = height, width
    except Exception:  # a format that only OpenCV knows, or a broken file
        return _decoded(path)
    if mode.startswith(('I', 'F')) or ';16' in raw:
        channels = 1 if mode[0] in 'IF' else _CHANNELS.get(mode, 3)
        return f'{32 if mode == "F" else 16} bit, {channels} channels', (width, height)
    return f'8 bit, {_CHANNELS.get(mode, 3)} channels', (width, height)


def _decoded(path: str) -> tuple[str, tuple[int, int] | None]:
    image = _values(path)
    if image is None:
        return 'unreadable', None
    channels = 1 if image.ndim == 2 else image.shape[2]
    return f'{8 * image.itemsize} bit, {channels} channels', (image.shape[1], image.shape[0])


def _values(path: str) -> Any:
    import cv2

    return cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED) if os.path.getsize(path) else None


def _check_loading(loader: Mapping, kind: str, found: list[str], model: Mapping, folder: str, report: Report) -> None:
    """Compare images that are not of 8 bits and three channels with what the run's loading makes of them."""
    color_type = loader.get('color_type', 'color')
    bits, channels = int(kind.split()[0]), int(kind.split()[2])
    if bits > 8 and isinstance(color_type, str) and color_type != 'unchanged':
        images = [image for path in spread(found, _SAMPLED_VALUES) if (image := _values(path)) is not None]
        highest = max((float(image.max()) for image in images), default=0)
        kept = 'values are cut'
        if bits == 16:
            kept = f'of values up to {highest:.0f}, {int(highest) // 256 + 1} grey levels are left'
        report.warn(f'{len(found)} images have {bits} bits ({first_few(found)}), but LoadImageFromFile makes 8 bits of '
                    f'them: {kept}. To keep them, load with {_KEEP_DEPTH} everywhere, leave out PhotoMetricDistortion, '
                    f'and set mean and std of model.data_preprocessor in the range 0 .. {highest:.0f}', folder,
                    len(found))
    if channels > 3 and color_type != 'unchanged':
        report.warn(f'{len(found)} images have {channels} channels ({first_few(found)}), of which LoadImageFromFile '
                    'keeps 3 (of four, an alpha channel is dropped)', folder, len(found))
    inputs = (model.get('backbone') or {}).get('in_channels', 3)
    if color_type == 'unchanged' and channels != inputs:
        report.error(f'{len(found)} images have {channels} channels ({first_few(found)}), but '
                     f'model.backbone.in_channels={inputs}', folder, len(found))
