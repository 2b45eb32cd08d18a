"""Data sets of a few images on disk whose files and annotations are as odd as they come."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from hostile import make_label_map
from mmdet.registry import DATASETS as MMDET_DATASETS
from mmengine.dataset import BaseDataset
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS as MMSEG_DATASETS
from PIL import Image

FORMATS = dict(jpg='.jpg', png='.png', uint16='.png', grey='.png', grey16='.png', grey_alpha='.png', rgba='.png',
               palette='.png', bilevel='.png', exif='.jpg')
"""Kinds of image files and their suffixes; 'exif' is stored lying and is to be shown standing."""
CATEGORIES = [dict(id=id, name=name, supercategory='', isthing=isthing)
              for id, name, isthing in ((3, 'a', 1), (7, 'b', 1), (90, 'c', 1), (92, 'd', 0), (200, 'e', 0))]
"""Their ids have holes."""
CLASSES = [category['name'] for category in CATEGORIES]
METAINFO = dict(classes=CLASSES, thing_classes=CLASSES[:3], stuff_classes=CLASSES[3:])
OBJECTS = ('box', 'triangle', 'crowd', 'rle', 'rle empty', 'two points', 'odd polygon', 'zero polygon', 'empty polygon',
           'no points', 'zero box', 'thin box', 'outside', 'partly outside', 'category unknown')
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


SEGMENTS = ('thing', 'stuff', 'crowd', 'zero area', 'thin box', 'unlisted')
"""Kinds of panoptic segments that can be trained on or are passed over."""


def panoptic(root: Path, images: list[dict], seed: int) -> BaseDataset:
    """A panoptic data set of mmdet.

    Args:
        root: Its folder.
        images: ``format`` (one of .jpg or .png), ``size`` and ``segments`` (kinds) of each; ``changes`` are made to
            the entries of its ``segments_info``, and ``png_size`` is the size of its PNG where it is another one.
        seed: Of pixels and places.
    """
    rng = np.random.default_rng(seed)
    (root / 'png').mkdir()
    infos, annotations = [], []
    for i, image in enumerate(images):
        name = f'{i}{FORMATS[image["format"]]}'
        write_image(root / name, image['format'], *image['size'], rng)
        height, width = image['size']
        infos.append(dict(id=10 * i + 7, file_name=name, height=height, width=width))
        ids, segments = segment_map(image['segments'], *image.get('png_size', image['size']), rng)
        Image.fromarray(np.stack([ids % 256, ids // 256, 0 * ids], axis=-1).astype(np.uint8)).save(
            root / 'png' / f'{i}.png')
        segments = [segment | image.get('changes', {}) for segment in segments] * image.get('times', 1)
        annotations.append(dict(image_id=10 * i + 7, file_name=f'{i}.png', segments_info=segments))
    (root / 'panoptic.json').write_text(json.dumps(dict(
        images=infos, annotations=annotations, categories=CATEGORIES)))
    pipeline = [dict(type='knet_plugin.LoadImageFromFile'), dict(type='knet_plugin.LoadPanopticAnnotations'),
                dict(type='PackDetInputs')]
    cfg = dict(type='CocoPanopticDataset', ann_file='panoptic.json', data_root=f'{root}/',
               data_prefix=dict(img='', seg='png/'), metainfo=METAINFO, pipeline=pipeline)
    return build(cfg, 'mmdet')


def segment_map(kinds: list[str], height: int, width: int,
                rng: np.random.Generator) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Segments as boxes over each other: their ids (H, W) and what is said about those that can be seen."""
    ids, segments = np.zeros((height, width), np.int64), []
    for i, kind in enumerate(kinds):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        w, h = int(rng.integers(1, width - x + 1)), int(rng.integers(1, height - y + 1))
        ids[y:y + h, x:x + w] = 250 + i
        category = [92, 200][rng.integers(2)] if kind == 'stuff' else [3, 7, 90][rng.integers(3)]
        segments.append(dict(id=250 + i, category_id=category, bbox=[x, y, .5 if kind == 'thin box' else w, h],
                             area=0 if kind == 'zero area' else w * h, iscrowd=int(kind == 'crowd'), kind=kind))
    seen = np.unique(ids)
    return ids, [segment for segment in segments if segment['id'] in seen and segment['kind'] != 'unlisted']


LABELS = dict(uint8=np.uint8, uint16=np.uint16, palette=np.uint8)
"""Kinds of label maps for semantic segmentation."""


def semantic(root: Path, images: list[dict], seed: int) -> BaseDataset:
    """A semantic data set of mmseg.

    Args:
        root: Its folder.
        images: ``format``, ``size``, ``labels`` (a kind of file), ``label_map`` (a kind of content) of each;
            ``png_size`` is the size of its label map where it is another one.
        seed: Of pixels.
    """
    rng = np.random.default_rng(seed)
    (root / 'img').mkdir()
    (root / 'png').mkdir()
    for i, image in enumerate(images):
        # mmseg finds images by one suffix and does not care what is in them.
        path = root / 'img' / f'{i}{FORMATS[image["format"]]}'
        write_image(path, image['format'], *image['size'], rng)
        path.rename(path.with_suffix('.img'))
        height, width = image.get('png_size', image['size'])
        content = make_label_map(image['label_map'], len(CLASSES), height, width,
                                 torch.Generator().manual_seed(int(rng.integers(2**31)))).numpy()
        write_labels(root / 'png' / f'{i}.png', image['labels'], content)
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    cfg = dict(type='BaseSegDataset', data_root=f'{root}/', data_prefix=dict(img_path='img', seg_map_path='png'),
               img_suffix='.img', metainfo=dict(classes=CLASSES), pipeline=pipeline)
    return build(cfg, 'mmseg')


def write_labels(path: Path, kind: str, labels: np.ndarray) -> None:
    """Write a label map (H, W)."""
    image = Image.fromarray(labels.astype(np.uint16 if kind == 'uint16' else np.uint8))
    if kind == 'palette':
        image = Image.frombytes('P', image.size, image.tobytes())
        image.putpalette([i // 3 for i in range(768)])
    image.save(path)
