"""Data sets of a few images on disk whose files and annotations are as odd as they come."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmdet.registry import DATASETS as MMDET_DATASETS
from mmengine.dataset import BaseDataset
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS as MMSEG_DATASETS
from PIL import Image

FORMATS = dict(jpg='.jpg', png='.png', uint16='.png', grey='.png', grey16='.png', grey_alpha='.png', rgba='.png',
               palette='.png', bilevel='.png', exif='.jpg')
"""Kinds of image files and their suffixes; 'exif' is stored lying and is to be shown standing."""
CATEGORIES = [dict(id=id, name=name, supercategory='', isthing=int(thing))
              for id, name, thing in ((3, 'a', True), (7, 'b', True), (90, 'c', True), (92, 'd', False), (200, 'e', False))]
"""Their ids have holes."""
CLASSES = [category['name'] for category in CATEGORIES]
METAINFO = dict(classes=CLASSES, thing_classes=CLASSES[:3], stuff_classes=CLASSES[3:])
OBJECTS = ('box', 'triangle', 'crowd', 'rle', 'rle empty', 'two points', 'odd polygon', 'zero polygon', 'empty polygon',
           'no points', 'zero box', 'thin box', 'outside', 'partly outside', 'category unknown', 'twice')
"""Kinds of annotations that can be trained on or are passed over."""


def write_image(path: Path, kind: str, height: int, width: int, rng: np.random.Generator) -> None:
    """Write an image that is shown with this size."""
    colors = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == 'uint16':
        cv2.imwrite(str(path), colors.astype(np.uint16) * 257)
    elif kind == 'grey16':
        cv2.imwrite(str(path), colors[..., 0].astype(np.uint16) * 257)
    elif kind == 'exif':
        exif = Image.Exif()
        exif[0x0112] = 6  # orientation: to be turned by 90 degrees
        Image.fromarray(np.rot90(colors).copy()).save(path, exif=exif, quality=100, subsampling=0)
    else:
        mode = dict(grey='L', grey_alpha='LA', rgba='RGBA', palette='P', bilevel='1').get(kind, 'RGB')
        image = Image.fromarray(colors)
        if mode in ('LA', 'RGBA'):
            image.putalpha(Image.fromarray(colors[..., 1]))
        image.convert(mode).save(path, **dict(quality=100) if kind == 'jpg' else {})


def annotation(kind: str, height: int, width: int, rng: np.random.Generator) -> dict[str, Any]:
    """An object of an image in COCO's format."""
    x, y = int(rng.integers(width)), int(rng.integers(height))
    w, h = int(rng.integers(1, width - x + 1)), int(rng.integers(1, height - y + 1))
    mask = np.zeros((height, width), np.uint8)
    mask[y:y + h, x:x + w] = 1
    ann = dict(bbox=[x, y, w, h], area=w * h, iscrowd=int(kind == 'crowd'), category_id=[3, 7, 90][rng.integers(3)],
               segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]])
    changes: dict[str, dict] = {
        'triangle': dict(segmentation=[[x, y, x + w, y, x, y + h]]),
        'crowd': dict(segmentation=run_lengths(mask)),
        'rle': dict(segmentation=run_lengths(mask)),
        'rle empty': dict(segmentation=run_lengths(0 * mask)),
        'two points': dict(segmentation=[[x, y, x + w, y + h]]),
        'odd polygon': dict(segmentation=[[x, y, x + w, y, x + w, y + h, x]]),
        'zero polygon': dict(segmentation=[[x, y, x, y, x, y]]),
        'empty polygon': dict(segmentation=[[]]),
        'no points': dict(segmentation=[[x, y], [x + w, y + h]]),
        'zero box': dict(bbox=[x, y, 0, h], area=0),
        'thin box': dict(bbox=[x, y, .5, h]),
        'outside': dict(bbox=[width + 5, 0, 4, 4], segmentation=[[width + 5, 0, width + 9, 0, width + 9, 4]]),
        'partly outside': dict(bbox=[-3, -3, width + 6, height + 6], segmentation=[
            [-3, -3, width + 3, -3, width + 3, height + 3, -3, height + 3]]),
        'category unknown': dict(category_id=4)
    }
    return ann | changes.get(kind, {})


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """A mask (H, W) in COCO's uncompressed encoding: by columns, beginning with zeros."""
    flat = np.concatenate([[0], mask.flatten('F'), [1 - mask[-1, -1]]])
    changes = np.flatnonzero(np.diff(flat))
    return dict(size=list(mask.shape), counts=np.diff(changes, prepend=0).tolist())


def coco(root: Path, images: list[dict], seed: int) -> BaseDataset:
    """An instance data set of mmdet.

    Args:
        root: Its folder.
        images: ``format``, ``size`` and ``objects`` (kinds of annotations, or annotations) of each; ``said`` is the
            size in the annotation file where it is another one.
        seed: Of pixels and places.
    """
    rng = np.random.default_rng(seed)
    infos, annotations = [], []
    for i, image in enumerate(images):
        name = f'{i}{FORMATS[image["format"]]}'
        write_image(root / name, image['format'], *image['size'], rng)
        height, width = image.get('said', image['size'])
        infos.append(dict(id=10 * i + 7, file_name=name, height=height, width=width))
        objects = [kind if isinstance(kind, dict) else annotation(kind, height, width, rng)
                   for kind in image['objects']]
        annotations += [dict(ann, image_id=10 * i + 7) for ann in objects]
    content = dict(images=infos, annotations=[dict(id=5 * i + 1) | ann for i, ann in enumerate(annotations)],
                   categories=CATEGORIES[:3])
    (root / 'coco.json').write_text(json.dumps(content))
    pipeline = [dict(type='knet_plugin.LoadImageFromFile'),
                dict(type='knet_plugin.LoadAnnotations', with_bbox=True, with_mask=True), dict(type='PackDetInputs')]
    cfg = dict(type='CocoDataset', ann_file='coco.json', data_root=f'{root}/', data_prefix=dict(img=''),
               metainfo=dict(classes=CLASSES[:3]), pipeline=pipeline)
    return build(cfg, 'mmdet')


def build(cfg: dict, scope: str) -> BaseDataset:
    """A data set of a host."""
    with DefaultScope.overwrite_default_scope(scope):
        return dict(mmdet=MMDET_DATASETS, mmseg=MMSEG_DATASETS)[scope].build(cfg)
