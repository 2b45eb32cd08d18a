"""What the page shows of results: pictures as PNG, and what lies where."""

from __future__ import annotations

import base64
import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from knet_plugin.inference.confusion import partners
from knet_plugin.inference.inputs import Frame, Source
from knet_plugin.inference.outputs import ResultWriter
from knet_plugin.visualization import Result, draw
from knet_plugin.visualization.colours import class_colours
from knet_plugin.visualization.regions import Region, region_map
from knet_plugin.web.gallery import Gallery, Picture

__all__ = ['coco_files', 'differences', 'heat_map', 'png', 'png_bytes', 'view']

_ONLY_FIRST, _ONLY_SECOND, _OTHER = (230, 120, 0), (0, 110, 230), (200, 0, 160)  # RGB of differing pixels


def png(image: np.ndarray) -> str:
    """An image (H, W, 3) uint8 RGB as a data URL."""
    return 'data:image/png;base64,' + base64.b64encode(png_bytes(image)).decode()


def png_bytes(image: np.ndarray) -> bytes:
    """An image (H, W, 3) uint8 RGB as the content of a file."""
    _, content = cv2.imencode('.png', image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return bytes(content.tobytes())


def heat_map(values: np.ndarray) -> str:
    """Values (h, w) from 0 to 1 in colours from dark blue to yellow, as a data URL."""
    return png(cv2.applyColorMap((255 * values).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1])


def view(gallery: Gallery, number: int, model: str, part: str, score_thr: float) -> dict[str, Any]:
    """A part of a result: the drawn picture, a map of regions (number i in red + 256 green), and region i at i - 1."""
    result, _ = gallery.run(number, model)
    predictor, image = gallery.predictor(model), gallery.picture(number).image
    index, regions = _regions(predictor, result, part, score_thr)
    drawn = draw(image, result, predictor.classes, part, predictor.palette, score_thr)
    numbers = np.stack([index & 255, index >> 8, np.zeros_like(index)], axis=-1).astype(np.uint8)
    return dict(drawn=png(drawn), index=png(numbers), regions=[
        dict(name=_name(predictor, region.label), score=region.score, kernel=_kernel(predictor, region, part))
        for region in regions])


def differences(gallery: Gallery, number: int, models: tuple[str, str], part: str, score_thr: float) -> dict[str, Any]:
    """Where two models differ.

    Returns:
        ``picture``, the grey photo with the pixels of different classes: orange in regions that only the first
        model has, blue in those of the second alone, pink elsewhere. ``lines``, one for each region without a partner
        of IoU above 0.5, or of another class; ``share``, that of differing pixels.
    """
    predictors = [gallery.predictor(model) for model in models]
    maps, names, regions = [], [], []
    for predictor, model in zip(predictors, models, strict=True):
        index, found = _regions(predictor, gallery.run(number, model)[0], part, score_thr)
        maps.append(index.astype(np.int64))
        regions.append(found)
        names.append(np.array(['', *(_name(predictor, region.label) for region in found)], dtype=object))
    sizes = len(regions[0]) + 1, len(regions[1]) + 1
    both = np.bincount((maps[0] * sizes[1] + maps[1]).ravel(), minlength=sizes[0] * sizes[1]).reshape(sizes)
    union = both.sum(axis=1, keepdims=True) + both.sum(axis=0, keepdims=True) - both
    matched = partners((both / np.maximum(union, 1))[1:, 1:])
    alone = [np.ones(size, bool) for size in sizes]
    alone[0][[0, *(i + 1 for i in matched.values())]] = False
    alone[1][[0, *(j + 1 for j in matched)]] = False
    differ = (names[0][:, None] != names[1])[maps[0], maps[1]]
    grey = cv2.cvtColor(gallery.picture(number).image, cv2.COLOR_RGB2GRAY)
    picture = np.repeat((grey // 2 + 100)[..., None], 3, axis=2).astype(np.uint8)
    picture[differ] = _OTHER
    picture[differ & alone[0][maps[0]]] = _ONLY_FIRST
    picture[differ & alone[1][maps[1]]] = _ONLY_SECOND
    lines = [f'only {model}: {name}' for model, kind, own in zip(models, names, alone, strict=True)
             for name in kind[own].tolist()]
    lines += [f'{names[0][i + 1]} in {models[0]} is {names[1][j + 1]} in {models[1]}'
              for j, i in matched.items() if names[0][i + 1] != names[1][j + 1]]
    return dict(picture=png(picture), lines=lines, share=float(differ.mean()))


def coco_files(gallery: Gallery, number: int, model: str, score_thr: float) -> bytes:
    """A zip archive of the files of ``knet predict --json``."""
    picture = gallery.picture(number)
    predictor = gallery.predictor(model)
    result, _ = gallery.run(number, model)
    content = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        with ResultWriter(Path(folder), predictor.classes, predictor.num_things, score_thr) as writer:
            writer.add(_frame(picture), result)
        with zipfile.ZipFile(content, 'w', zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(Path(folder).rglob('*')):
                archive.write(file, file.relative_to(folder))
    return content.getvalue()


def _frame(picture: Picture) -> Frame:
    name = Path(picture.name.replace('\\', '/')).name or 'picture'  # an upload chooses no folder
    return Frame(Source(Path(name), name, Path(name).stem, False), picture.image)


def _regions(predictor: Any, result: Result, part: str, score_thr: float) -> tuple[np.ndarray, list[Region]]:
    return region_map(result, part, class_colours(predictor.palette, len(predictor.classes)), score_thr)


def _name(predictor: Any, label: int) -> str:
    return str(predictor.classes[label]) if label < len(predictor.classes) else f'class {label}'


def _kernel(predictor: Any, region: Region, part: str) -> int | None:
    """The kernel of a region; in semantic segmentation each class has its own."""
    head: Any = getattr(getattr(predictor, 'model', None), 'decode_head', None)
    if part != 'semantic' or not hasattr(head, 'stage_logits'):
        return region.kernel
    if head.out_channels == 1:  # the kernel of class 1
        return 0 if region.label == 1 else None
    return region.label
