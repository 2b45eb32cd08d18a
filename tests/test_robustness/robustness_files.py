"""Data sets of a few images on disk with unusual files and annotations."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.registry import DATASETS as MMDET_DATASETS
from mmengine.dataset import BaseDataset
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS as MMSEG_DATASETS
from PIL import Image
from robustness_inputs import make_label_map

FORMATS = dict(jpg='.jpg', png='.png', uint16='.png', grey='.png', grey16='.png', grey_alpha='.png', rgba='.png',
               palette='.png', bilevel='.png', exif='.jpg')
"""Kinds of image files and their suffixes; 'exif' is stored rotated."""
CATEGORIES = [dict(id=id, name=name, supercategory='', isthing=isthing)
              for id, name, isthing in ((3, 'a', 1), (7, 'b', 1), (90, 'c', 1), (92, 'd', 0), (200, 'e', 0))]
CLASSES = [category['name'] for category in CATEGORIES]
METAINFO = dict(classes=CLASSES, thing_classes=CLASSES[:3], stuff_classes=CLASSES[3:])
OBJECTS = ('box', 'crowd', 'rle empty', 'two points', 'odd polygon', 'zero polygon', 'zero box', 'thin box', 'outside',
           'partly outside', 'category unknown')
SEGMENTS = ('thing', 'stuff', 'crowd', 'zero area', 'thin box', 'unlisted')


def write_image(path: Path, kind: str, height: int, width: int, rng: np.random.Generator) -> None:
    """Write an image that decodes to this size."""
    colours = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind in ('uint16', 'grey16'):
        cv2.imwrite(str(path), (colours if kind == 'uint16' else colours[..., 0]).astype(np.uint16) * 257)
    elif kind == 'exif':
        exif = Image.Exif()
        exif[0x0112] = 6  # rotate by 90 degrees
        Image.fromarray(np.rot90(colours).copy()).save(path, exif=exif)
    else:
        mode = dict(grey='L', grey_alpha='LA', rgba='RGBA', palette='P', bilevel='1').get(kind, 'RGB')
        image = Image.fromarray(colours)
        if mode in ('LA', 'RGBA'):
            image.putalpha(Image.fromarray(colours[..., 1]))
        image.convert(mode).save(path)


def annotation(kind: str, height: int, width: int, rng: np.random.Generator) -> dict[str, Any]:
    """A COCO annotation."""
    x, y = int(rng.integers(width)), int(rng.integers(height))
    w, h = int(rng.integers(1, width - x + 1)), int(rng.integers(1, height - y + 1))
    changes: dict[str, dict] = {
        'crowd': dict(iscrowd=1, segmentation=dict(size=[height, width], counts=[1, height * width - 1])),
        'rle empty': dict(segmentation=dict(size=[height, width], counts=[height * width])),
        'two points': dict(segmentation=[[x, y, x + w, y + h]]),
        'odd polygon': dict(segmentation=[[x, y, x + w, y, x + w, y + h, x]]),
        'zero polygon': dict(segmentation=[[x, y, x, y, x, y]]),
        'zero box': dict(bbox=[x, y, 0, h], area=0),
        'thin box': dict(bbox=[x, y, .5, h]),
        'outside': dict(bbox=[width + 5, 0, 4, 4], segmentation=[[width + 5, 0, width + 9, 0, width + 9, 4]]),
        'partly outside': dict(bbox=[-3, -3, width + 6, height + 6], segmentation=[
            [-3, -3, width + 3, -3, width + 3, height + 3, -3, height + 3]]),
        'category unknown': dict(category_id=4)
    }
    return dict(bbox=[x, y, w, h], area=w * h, iscrowd=0, category_id=[3, 7, 90][rng.integers(3)],
                segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]]) | changes.get(kind, {})


def build(scope: str, **cfg: Any) -> BaseDataset:
    """Build a data set of a host."""
    with DefaultScope.overwrite_default_scope(scope):
        return dict(mmdet=MMDET_DATASETS, mmseg=MMSEG_DATASETS)[scope].build(cfg)


def instance(root: Path, images: list[dict], rng: np.random.Generator) -> BaseDataset:
    """Data set for instance segmentation with ``format``, ``size`` and ``objects`` of each image."""
    infos, annotations = [], []
    for i, image in enumerate(images):
        name = f'{i}{FORMATS[image["format"]]}'
        write_image(root / name, image['format'], *image['size'], rng)
        height, width = image['size']
        infos.append(dict(id=10 * i + 7, file_name=name, height=height, width=width))
        annotations += [dict(annotation(kind, height, width, rng), image_id=10 * i + 7) for kind in image['objects']]
    content = dict(images=infos, annotations=[dict(ann, id=5 * i + 1) for i, ann in enumerate(annotations)],
                   categories=CATEGORIES[:3])
    (root / 'coco.json').write_text(json.dumps(content))
    pipeline = [dict(type='knet_plugin.LoadImageFromFile'),
                dict(type='LoadAnnotations', with_bbox=True, with_mask=True), dict(type='PackDetInputs')]
    return build('mmdet', type='knet_plugin.InstanceDataset', ann_file='coco.json', data_root=f'{root}/',
                 data_prefix=dict(img=''), metainfo=dict(classes=CLASSES[:3]), pipeline=pipeline)


def panoptic(root: Path, images: list[dict], rng: np.random.Generator) -> BaseDataset:
    """Data set for panoptic segmentation with ``format``, ``size`` and ``segments`` of each image."""
    (root / 'png').mkdir()
    infos, annotations = [], []
    for i, image in enumerate(images):
        name = f'{i}{FORMATS[image["format"]]}'
        write_image(root / name, image['format'], *image['size'], rng)
        height, width = image['size']
        infos.append(dict(id=10 * i + 7, file_name=name, height=height, width=width))
        ids, segments = np.zeros((height, width), np.int64), []
        for segment, kind in enumerate(image['segments'], start=250):
            x, y, w, h = annotation(kind, height, width, rng)['bbox']
            ids[y:y + h, x:x + int(np.ceil(w))] = segment
            category = [92, 200][rng.integers(2)] if kind == 'stuff' else [3, 7, 90][rng.integers(3)]
            if kind != 'unlisted':
                segments.append(dict(id=segment, category_id=category, bbox=[x, y, w, h],
                                     area=0 if kind == 'zero area' else 1, iscrowd=int(kind == 'crowd')))
        visible = [segment for segment in segments if (ids == segment['id']).any()]
        colours = np.stack([ids % 256, ids // 256, 0 * ids], axis=-1).astype(np.uint8)
        Image.fromarray(colours).save(root / f'png/{i}.png')
        annotations.append(dict(image_id=10 * i + 7, file_name=f'{i}.png', segments_info=visible))
    content = dict(images=infos, annotations=annotations, categories=CATEGORIES)
    (root / 'panoptic.json').write_text(json.dumps(content))
    pipeline = [dict(type='knet_plugin.LoadImageFromFile'), dict(type='knet_plugin.LoadPanopticAnnotations'),
                dict(type='PackDetInputs')]
    return build('mmdet', type='CocoPanopticDataset', ann_file='panoptic.json', data_root=f'{root}/',
                 data_prefix=dict(img='', seg='png/'), metainfo=METAINFO, pipeline=pipeline)


def semantic(root: Path, images: list[dict], rng: np.random.Generator) -> BaseDataset:
    """Data set for semantic segmentation with ``format``, ``size`` and ``label_map`` (its kind) of each image."""
    (root / 'img').mkdir()
    (root / 'png').mkdir()
    for i, image in enumerate(images):
        path = root / 'img' / f'{i}{FORMATS[image["format"]]}'
        write_image(path, image['format'], *image['size'], rng)
        path.rename(path.with_suffix('.img'))  # mmseg reads files of one suffix
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        labels = make_label_map(image['label_map'], len(CLASSES), *image['size'], generator).numpy()
        Image.fromarray(labels.astype(np.uint8)).save(root / f'png/{i}.png')
    return build('mmseg', type='BaseSegDataset', data_root=f'{root}/', img_suffix='.img',
                 data_prefix=dict(img_path='img', seg_map_path='png'), metainfo=dict(classes=CLASSES),
                 pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')])
