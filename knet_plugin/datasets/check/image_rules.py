"""Rules on image files: that they exist, can be decoded, and keep their values when the run loads them."""

from collections.abc import Mapping, Sequence

import numpy as np

from knet_plugin.datasets.check.files import Files
from knet_plugin.datasets.check.report import Report
from knet_plugin.datasets.check.sources import Source
from knet_plugin.datasets.image_files import read_header, read_values
from knet_plugin.datasets.names import first_few

__all__ = ['check_images', 'spread']

_LOADERS = ('cv2', 'pillow')  # of LoadImageFromFile, that read what the check reads
_SAMPLED_VALUES = 8
# 3 = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH: three channels of the file's own depth.
_KEEP_DEPTH = "dict(type='LoadImageFromFile', color_type=3, to_float32=True)"
_TIFFS = ("load TIFFs of more than 4 channels with dict(type='LoadImageFromFile', imdecode_backend='tifffile', "
          "color_type='unchanged')")


def spread(items: Sequence, limit: int) -> list:
    """At most ``limit`` of the items, evenly spaced."""
    if len(items) <= limit:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, limit).round().astype(int)]


def check_images(source: Source, paths: list[str], sizes: Mapping[str, tuple[int, int]], model: Mapping, files: Files,
                 report: Report, limit: int) -> dict[str, tuple[int, int]]:
    """Look for every image, and into the headers of at most ``limit``.

    ``sizes`` are the (width, height) that the annotations give, by path. Returns those that the loader gives, as far as
    they are known.
    """
    prefix = source.dataset.data_prefix
    folder = prefix.get('img') or prefix.get('img_path') or ''
    missing = files.missing(paths)
    if missing:
        report.error(f'{len(missing)} of {len(paths)} images are missing: {first_few(missing)}; check data_root and '
                     'data_prefix', folder)
    gone = set(missing)
    unreadable: list[str] = []
    resized: list[str] = []
    shown: dict[str, tuple[int, int]] = {}
    examples: dict[tuple[int, int], list[str]] = {}  # by bits and channels
    for path in spread([path for path in paths if path not in gone], limit):
        try:
            header = read_header(path)
        except ValueError:
            unreadable.append(path)
            continue
        examples.setdefault((header.bits, header.channels), []).append(path)
        width_height = shown[path] = header.size[1], header.size[0]
        if width_height != sizes.get(path, width_height):
            resized.append(f'{path} is {width_height}, not {sizes[path]}')
    loader = source.transform('LoadImageFromFile')
    if loader is None or loader.get('imdecode_backend', 'cv2') not in _LOADERS:
        return {}  # the user's own way to load, which may know other formats
    if unreadable:
        advice = _TIFFS if unreadable[0].lower().endswith(('.tif', '.tiff')) else 'replace or remove them'
        report.error(f'{len(unreadable)} images cannot be decoded: {first_few(unreadable)}; {advice}', folder)
    if resized:
        report.error(f'{len(resized)} images have another (width, height) than the annotations say: '
                     f'{first_few(resized)}', folder)
    for (bits, channels), found in examples.items():
        _check_loading(loader, bits, channels, found, model, folder, report)
    return {} if loader.get('color_type') == 'unchanged' else shown  # which ignores the orientation


def _check_loading(loader: Mapping, bits: int, channels: int, found: list[str], model: Mapping, folder: str,
                   report: Report) -> None:
    """Compare images that are not of 8 bits and three channels with what the run's loading makes of them."""
    color_type = loader.get('color_type', 'color')
    if bits > 8 and isinstance(color_type, str) and color_type != 'unchanged':
        images = [image for path in spread(found, _SAMPLED_VALUES) if (image := read_values(path)) is not None]
        highest = max((float(image.max()) for image in images), default=0)
        kept = 'values are cut'
        if bits == 16:
            kept = f'of values up to {highest:.0f}, {int(highest) // 256 + 1} grey levels are left'
        report.warn(f'{len(found)} images have {bits} bits ({first_few(found)}), but LoadImageFromFile makes 8 bits of '
                    f'them: {kept}. To keep them, load with {_KEEP_DEPTH} everywhere, leave out PhotoMetricDistortion, '
                    f'and set mean and std of model.data_preprocessor in the range 0 .. {highest:.0f}', folder)
    if channels > 3 and color_type != 'unchanged':
        report.warn(f'{len(found)} images have {channels} channels ({first_few(found)}), of which LoadImageFromFile '
                    'keeps 3 (of four, an alpha channel is dropped)', folder)
    inputs = (model.get('backbone') or {}).get('in_channels', 3)
    if color_type == 'unchanged' and channels != inputs:
        report.error(f'{len(found)} images have {channels} channels ({first_few(found)}), but '
                     f'model.backbone.in_channels={inputs}', folder)
