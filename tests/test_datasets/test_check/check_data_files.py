"""Tiny data sets for the tests of the check, and configs for them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config

THINGS, STUFF = ('cat', 'dog'), ('sky', 'sea')
CLASSES = THINGS + STUFF
SIDE = 40
SQUARE = [[2, 2, 12, 2, 12, 12, 2, 12]]


def instances(number: int = 3, **options: Any) -> dict[str, Any]:
    """COCO instances: images 0.jpg, 1.jpg, ... with one object of each class."""
    images = [dict(id=i, file_name=f'{i}.jpg', height=SIDE, width=SIDE) for i in range(number)]
    annotations = [dict(id=10 * i + k + 1, image_id=i, category_id=k + 1, bbox=[2, 2, 10, 10], area=100, iscrowd=0,
                        segmentation=SQUARE) for i in range(number) for k in range(len(THINGS))]
    return dict(images=images, annotations=annotations,
                categories=[dict(id=k + 1, name=name) for k, name in enumerate(THINGS)]) | options


def panoptic(number: int = 3) -> dict[str, Any]:
    """COCO panoptic: a segment of every class in each image."""
    segments = [dict(id=k + 1, category_id=k + 1, bbox=[0, 10 * k, SIDE, 10], area=10 * SIDE, iscrowd=0)
                for k in range(len(CLASSES))]
    return dict(images=instances(number)['images'],
                annotations=[dict(image_id=i, file_name=f'{i}.png', segments_info=[dict(each) for each in segments])
                             for i in range(number)],
                categories=[dict(id=k + 1, name=name, isthing=int(name in THINGS)) for k, name in enumerate(CLASSES)])


def write_images(folder: Path, number: int = 3) -> None:
    """Black images 0.jpg, 1.jpg, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(number):
        cv2.imwrite(str(folder / f'{i}.jpg'), np.zeros((SIDE, SIDE, 3), np.uint8))


def write_maps(folder: Path, values: np.ndarray, number: int = 3) -> None:
    """Equal label maps or panoptic PNGs 0.png, 1.png, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(number):
        cv2.imwrite(str(folder / f'{i}.png'), values)


def label_map(*values: int, dtype: type = np.uint8) -> np.ndarray:
    """A label map of equal stripes, (SIDE, SIDE)."""
    return np.repeat(np.resize(np.array(values, dtype), SIDE)[:, None], SIDE, axis=1)


def write_json(path: Path, data: Any) -> None:
    """Write an annotation file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def edit(root: Path, function: Callable[[dict], Any], *sections: str) -> None:
    """Change the annotation files of sections, by default of both."""
    for section in sections or ('train', 'val'):
        data = json.loads((root / f'{section}.json').read_text())
        function(data)
        write_json(root / f'{section}.json', data)


def each_item(function: Callable[[dict], Any]) -> Callable[[dict], None]:
    """A change of all objects or segments, for ``edit``."""
    def apply(data: dict) -> None:
        for each in data['annotations']:
            for item in each.get('segments_info', [each]):
                function(item)
    return apply


def messages(findings: list) -> str:
    """The lines of the findings."""
    return '\n'.join(map(str, findings))


def instance_config(root: Path, dataset: str = 'CocoDataset', metric: str = 'CocoMetric') -> Config:
    """A K-Net for the instances that ``write_instances`` writes."""
    common = dict(type=dataset, data_root=f'{root}/', metainfo=dict(classes=THINGS), data_prefix=dict(img='images/'),
                  pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_mask=True)])
    return Config(dict(
        default_scope='mmdet',
        model=dict(panoptic_head=dict(type='knet_plugin.KernelIterHead', num_things_classes=len(THINGS),
                                      num_stuff_classes=0, kernel_head=dict(num_kernels=3))),
        train_dataloader=dict(batch_size=1, dataset=dict(common, ann_file='train.json')),
        val_dataloader=dict(batch_size=1, dataset=dict(common, ann_file='val.json', test_mode=True)),
        val_evaluator=dict(type=metric, ann_file=f'{root}/val.json', metric=['segm'])))


def write_instances(root: Path) -> None:
    """Images, train.json and val.json."""
    write_images(root / 'images')
    for section in ('train', 'val'):
        write_json(root / f'{section}.json', instances())


def panoptic_config(root: Path, dataset: str = 'CocoPanopticDataset', metric: str = 'CocoPanopticMetric') -> Config:
    """A K-Net for the panoptic data that ``write_panoptic`` writes."""
    cfg = instance_config(root, dataset)
    cfg.model.panoptic_head.num_stuff_classes = len(STUFF)
    for name in ('train_dataloader', 'val_dataloader'):
        cfg[name].dataset.update(metainfo=dict(classes=CLASSES, thing_classes=THINGS, stuff_classes=STUFF),
                                 data_prefix=dict(img='images/', seg='panoptic/'),
                                 pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadPanopticAnnotations')])
    cfg.val_evaluator = dict(type=metric, ann_file=f'{root}/val.json', seg_prefix=f'{root}/panoptic/')
    return cfg


def write_panoptic(root: Path) -> None:
    """Images, PNGs, train.json and val.json."""
    write_images(root / 'images')
    ids = label_map(*np.repeat(np.arange(1, len(CLASSES) + 1), SIDE // len(CLASSES)))
    write_maps(root / 'panoptic', np.dstack([np.zeros_like(ids), np.zeros_like(ids), ids]))
    for section in ('train', 'val'):
        write_json(root / f'{section}.json', panoptic())


def semantic_config(root: Path, num_classes: int = 2, **options: Any) -> Config:
    """A segmentor for images and label maps in ``root/images`` and ``root/labels``."""
    dataset = dict(type='BaseSegDataset', data_root=str(root), metainfo=dict(classes=CLASSES[:num_classes]),
                   data_prefix=dict(img_path='images', seg_map_path='labels'),
                   pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]) | options
    head = dict(type='FCNHead', num_classes=num_classes)
    return Config(dict(
        default_scope='mmseg',
        model=dict(decode_head=dict(type='knet_plugin.IterativeDecodeHead', kernel_generate_head=head),
                   auxiliary_head=dict(head)),
        train_dataloader=dict(batch_size=1, dataset=dataset), val_dataloader=dict(batch_size=1, dataset=dataset),
        val_evaluator=dict(type='IoUMetric')))


def make(root: Path, kind: str, ours: bool = False) -> Config:
    """Good data, and its config with our data sets and metrics or mmdet's."""
    write, config, name = ((write_instances, instance_config, 'Instance') if kind == 'instances' else
                           (write_panoptic, panoptic_config, 'Panoptic'))
    write(root)
    return config(root, f'knet_plugin.{name}Dataset', f'knet_plugin.{name}Metric') if ours else config(root)


def options(**changes: Any) -> Callable:
    """A change of the data sets in the config; None removes an option."""
    def apply(root: Path, cfg: Config) -> None:
        for name in ('train_dataloader', 'val_dataloader'):
            for key, value in changes.items():
                cfg[name].dataset.pop(key, None)  # ConfigDict would merge dicts
                if value is not None:
                    cfg[name].dataset[key] = value
    return apply


def metainfo(**changes: Any) -> Callable:
    """A change of the metainfo of both data sets."""
    return lambda root, cfg: [cfg[name].dataset.metainfo.update(changes)
                              for name in ('train_dataloader', 'val_dataloader')]


def file(function: Callable, *sections: str) -> Callable:
    """A change of files, as one of data and config."""
    return lambda root, cfg: edit(root, function, *sections)


def first(key: str, *sections: str, **changes: Any) -> Callable:
    """A change of the first entry of a list in the files; None removes a field."""
    def apply(data: dict) -> None:
        data[key][0].update(changes)
        for name in [name for name, value in changes.items() if value is None]:
            data[key][0].pop(name)
    return file(apply, *sections)


def drop(*names: str) -> Callable:
    """A change of all objects or segments."""
    return each_item(lambda item: [item.pop(name, None) for name in names])


def reverse(data: dict) -> None:
    """Reverse the categories."""
    data['categories'].reverse()
