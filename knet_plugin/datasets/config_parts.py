"""Data loaders and metrics for a prepared folder, as parts of a config."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knet_plugin.registry import SCOPE

if TYPE_CHECKING:
    from knet_plugin.datasets.description import DataDescription

__all__ = ['BEST_METRICS', 'crop_side', 'data_config', 'plain_datasets']

# By task, the name under which the metrics below report what the best checkpoint is chosen by.
BEST_METRICS = dict(panoptic='coco_panoptic/PQ', instance='coco/segm_mAP', semantic='mIoU')
_SIZE_DIVISOR = 32
_WITH_MASK = dict(type='FilterAnnotations', by_mask=True, keep_empty=False)
_OCCLUDED = 300 / 1024**2  # CopyPaste drops a covered object of which less is left; mmdet's 300 pixels of 1024 x 1024


def crop_side(short_side: int) -> int:
    """Side of the square crops that a model trains on: the short side, rounded up to a multiple of 32."""
    return math.ceil(short_side / _SIZE_DIVISOR) * _SIZE_DIVISOR


def data_config(description: DataDescription | str | os.PathLike, task: str, short_side: int = 256,
                batch_size: int = 8, num_workers: int = 2, load: Mapping[str, Any] | None = None,
                scales: tuple[float, float] = (0.7, 1.4), copy_paste: bool = False) -> dict[str, Any]:
    """Return the data loaders and evaluators of a config that trains on a prepared folder.

    Training scales images at random around the short side, crops, flips and changes their colours a little. Evaluation
    keeps their ratio; the long side is at most twice the short side.

    Args:
        description: What ``knet data prepare`` wrote: its description, or the path of the folder or of its
            ``data.yml``.
        task: 'panoptic', 'instance' or 'semantic'.
        short_side: Size of the images in pixels.
        batch_size: Images per iteration and process.
        num_workers: Processes that load images.
        load: Config of the loader of images. Given, the colours are not changed, because that expects 8 bits.
        scales: Smallest and largest scale of the training images, relative to the short side. (0.1, 2.0) is large
            scale jitter.
        copy_paste: Whether training pastes objects of another image over each image.

    Returns:
        ``train_dataloader``, ``val_dataloader``, ``test_dataloader``, ``val_evaluator`` and ``test_evaluator``; paths
        are absolute.

    Raises:
        ValueError: If the data cannot train the task, an argument is not positive, or ``copy_paste`` is set for
            semantic segmentation, which has no objects.
    """
    from knet_plugin.datasets.description import DataDescription

    if not isinstance(description, DataDescription):
        description = DataDescription.read(description)
    if task not in description.tasks:
        raise ValueError(f'task={task!r}: the data in {description.root} can train {", ".join(description.tasks)}')
    if copy_paste and task == 'semantic':
        raise ValueError('copy_paste=True needs objects to paste, but task=\'semantic\' has none')
    for name, value in (('short_side', short_side), ('batch_size', batch_size), ('scales[0]', scales[0])):
        if value <= 0:
            raise ValueError(f'{name} must be positive, got {name}={value}')
    parts: Callable = _semantic_parts if task == 'semantic' else _detection_parts
    train, val, evaluator = parts(description, task, short_side, scales)
    if load is not None:
        for dataset in (*plain_datasets(train), *plain_datasets(val)):
            kept = [step for step in dataset['pipeline'][1:] if step['type'] != _distortion()['type']]
            dataset['pipeline'] = [dict(load), *kept]
    if copy_paste:
        train = _with_copy_paste(train, crop_side(short_side))
    return _loaders(train, val, evaluator, batch_size, num_workers)


def _loaders(train: dict, val: dict, evaluator: list, batch_size: int, num_workers: int) -> dict[str, Any]:
    common = dict(num_workers=num_workers, persistent_workers=num_workers > 0)
    # An infinite sampler, because mmengine's loop over iterations sleeps for two seconds at the end of each epoch.
    train_loader = dict(batch_size=batch_size, **common, sampler=dict(type='InfiniteSampler', shuffle=True),
                        dataset=train)
    val_loader = dict(batch_size=1, **common, sampler=dict(type='DefaultSampler', shuffle=False), dataset=val)
    return dict(train_dataloader=train_loader, val_dataloader=val_loader,
                test_dataloader=deepcopy(val_loader), val_evaluator=evaluator, test_evaluator=deepcopy(evaluator))


def plain_datasets(dataset: Mapping[str, Any]) -> list[Any]:
    """The configs of the data sets within wrappers of the hosts, such as ``RepeatDataset`` and ``ConcatDataset``."""
    if 'datasets' in dataset:
        return [plain for part in dataset['datasets'] for plain in plain_datasets(part)]
    return plain_datasets(dataset['dataset']) if 'dataset' in dataset else [dataset]


def _detection_parts(description: DataDescription, task: str, short_side: int,
                     scales: tuple[float, float]) -> tuple[dict, dict, list]:
    """Data sets for training and validation, and metrics, of mmdet's kind."""
    root, panoptic = description.root.as_posix(), task == 'panoptic'
    name = 'panoptic' if panoptic else 'instances'
    load = (dict(type=f'{SCOPE}.LoadPanopticAnnotations') if panoptic else
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True))
    side = crop_side(short_side)
    train_pipeline = [
        dict(type=f'{SCOPE}.LoadImageFromFile'),
        load,
        _jitter(short_side, scales),
        dict(type='RandomCrop', crop_size=(side, side), recompute_bbox=True, allow_negative_crop=True),
        # A crop may leave nothing of an object but its box.
        dict(_WITH_MASK),
        dict(type='RandomFlip', prob=0.5),
        _distortion(),
        dict(type='PackDetInputs'),
    ]
    test_pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(2 * short_side, short_side), keep_ratio=True),
        load,
        dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
    ]

    def dataset(split: str, pipeline: list, **options: Any) -> dict:
        prefix = dict(img=f'images/{split}/')
        if panoptic:
            prefix['seg'] = f'annotations/panoptic_{split}/'
        return dict(type=f'{SCOPE}.{"Panoptic" if panoptic else "Instance"}Dataset', data_root=f'{root}/',
                    ann_file=f'annotations/{name}_{split}.json', data_prefix=prefix,
                    metainfo=description.metainfo(task), pipeline=pipeline, **options)

    def ann_file(kind: str) -> str:
        return f'{root}/annotations/{kind}_val.json'

    evaluator = [dict(type=f'{SCOPE}.InstanceMetric', ann_file=ann_file('instances'), metric=['segm'])]
    if panoptic:
        evaluator.insert(0, dict(type=f'{SCOPE}.PanopticMetric', ann_file=ann_file('panoptic'),
                                 seg_prefix=f'{root}/annotations/panoptic_val/'))
    return dataset('train', train_pipeline), dataset('val', test_pipeline, test_mode=True), evaluator


def _semantic_parts(description: DataDescription, task: str, short_side: int,
                    scales: tuple[float, float]) -> tuple[dict, dict, list]:
    """Data sets for training and validation, and metrics, of mmseg."""
    side = crop_side(short_side)
    train_pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations'),
        _jitter(short_side, scales),
        dict(type='RandomCrop', crop_size=(side, side), cat_max_ratio=0.75),
        dict(type='RandomFlip', prob=0.5),
        _distortion(),
        dict(type='PackSegInputs'),
    ]
    test_pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(2 * short_side, short_side), keep_ratio=True),
        # After Resize, because results are compared at the original size.
        dict(type='LoadAnnotations'),
        dict(type='PackSegInputs'),
    ]

    def dataset(split: str, pipeline: list, **options: Any) -> dict:
        parts = [dict(type='BaseSegDataset', data_root=f'{description.root.as_posix()}/', img_suffix=suffix,
                      data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'labels/{split}'),
                      metainfo=description.metainfo(task), pipeline=pipeline, **options)
                 for suffix in _suffixes(description.root / 'images' / split)]
        return parts[0] if len(parts) == 1 else dict(type='ConcatDataset', datasets=parts)

    evaluator = [dict(type='IoUMetric', iou_metrics=['mIoU'])]
    return dataset('train', train_pipeline), dataset('val', test_pipeline, test_mode=True), evaluator


def _suffixes(folder: Path) -> list[str]:
    """File endings of the images in a folder and below; mmseg's data set takes one."""
    return sorted({path.suffix for path in folder.rglob('*') if path.is_file()}) or ['.jpg']


def _jitter(short_side: int, scales: tuple[float, float]) -> dict:
    return dict(type='RandomResize', scale=(2 * short_side, short_side), ratio_range=scales, keep_ratio=True)


def _with_copy_paste(dataset: dict, side: int) -> dict:
    """Wrap a training data set of mmdet's kind; images get the size that they are cropped to, and colours last."""
    pipeline = dataset['pipeline']
    last = 1 + [step['type'] for step in pipeline].index('RandomFlip')
    pad = dict(type='Pad', size=(side, side), pad_val=dict(img=114, seg=255))
    paste = dict(type=f'{SCOPE}.CopyPaste', mask_occluded_thr=round(_OCCLUDED * side**2))
    return dict(type='MultiImageMixDataset', dataset=dict(dataset, pipeline=[*pipeline[:last], pad]),
                pipeline=[paste, dict(_WITH_MASK), *pipeline[last:]])


def _distortion() -> dict:
    """Half of the hosts' default strength, as few images do not teach a model unnatural colours."""
    return dict(type='PhotoMetricDistortion', brightness_delta=16, contrast_range=(0.75, 1.25),
                saturation_range=(0.75, 1.25), hue_delta=9)
