"""Checks before a run that model, data set and annotation file agree on the classes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any

from mmdet.datasets import CocoDataset, CocoPanopticDataset
from mmengine.fileio import get
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner

from knet_plugin.registry import HOOKS

__all__ = ['ClassCheckHook', 'check_categories', 'check_model_classes', 'read_categories']


@HOOKS.register_module()
class ClassCheckHook(Hook):
    """Stops a training or test whose model, data set and annotation file disagree on the classes.

    Otherwise only bad scores would show it. Models without ``num_things_classes`` and data sets without ``ann_file`` or
    ``classes`` are not checked.
    """

    def before_train(self, runner: Runner) -> None:
        """Check the data sets for training and validation."""
        self._check(runner.model, runner.train_loop, runner.val_loop)

    def before_test(self, runner: Runner) -> None:
        """Check the data set for testing."""
        self._check(runner.model, runner.test_loop)

    def _check(self, model: Any, *loops: Any) -> None:
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        for dataset in chain.from_iterable(_inner_datasets(loop.dataloader.dataset) for loop in loops if loop):
            ann_file, metainfo = getattr(dataset, 'ann_file', ''), getattr(dataset, 'metainfo', {})
            if not (ann_file and 'classes' in metainfo and hasattr(model, 'num_things_classes')):
                continue
            check_model_classes(model.num_things_classes, model.num_stuff_classes, metainfo, ann_file)
            if isinstance(dataset, CocoDataset):
                things = metainfo['thing_classes'] if isinstance(dataset, CocoPanopticDataset) else None
                check_categories(metainfo['classes'], read_categories(ann_file, dataset.backend_args), ann_file, things)


def check_model_classes(num_things: int, num_stuff: int, metainfo: Mapping[str, Any], ann_file: str) -> None:
    """Raise a ``ValueError`` if ``metainfo`` has other numbers of classes than the model, or stuff before things."""
    numbers = dict(thing_classes=num_things, stuff_classes=num_stuff, classes=num_things + num_stuff)
    for name, number in numbers.items():
        if name in metainfo and len(metainfo[name]) != number:
            raise ValueError(f'the model has num_things_classes={num_things} and num_stuff_classes={num_stuff}, but '
                             f'metainfo.{name} of the data set {ann_file} has {len(metainfo[name])} names')
    for name in metainfo['classes'][:num_things]:
        if name not in metainfo.get('thing_classes', [name]):
            raise ValueError(f'metainfo.classes of the data set {ann_file} must list the {num_things} thing_classes '
                             f'first, but {name!r} is none of them')


def check_categories(classes: Sequence[str], categories: Sequence[Mapping[str, Any]], ann_file: str,
                     thing_classes: Sequence[str] | None = None) -> None:
    """Raise a ``ValueError`` if ``metainfo`` of a data set contradicts the categories of its annotation file.

    mmdet assigns labels to the known categories in the order of the file, whatever the order of ``classes``.
    ``thing_classes`` of a panoptic data set must be those with ``isthing``.
    """
    known = [category for category in categories if category['name'] in classes]
    names = [category['name'] for category in known]
    for label, (name, found) in enumerate(zip_longest(classes, names)):
        if name != found:
            raise ValueError(f'label {label} is {name!r} in metainfo.classes, but {found!r} in the categories of '
                             f'{ann_file}')
    for category in known:
        if thing_classes is not None and bool(category.get('isthing')) != (category['name'] in thing_classes):
            raise ValueError(f'category {category["name"]!r} has isthing={category.get("isthing")} in {ann_file}, '
                             'against metainfo.thing_classes')


def read_categories(ann_file: str, backend_args: dict | None = None) -> list[dict[str, Any]]:
    """Read the categories of a COCO annotation file, or raise a ``ValueError`` if it has none."""
    try:
        categories = json.loads(get(ann_file, backend_args=backend_args))['categories']
        if all('name' in category for category in categories):
            return categories
    except (KeyError, TypeError, ValueError):
        pass
    raise ValueError(f'{ann_file} is not a COCO annotation file with "categories"')


def _inner_datasets(dataset: Any) -> Iterator[Any]:
    """Yield the data sets inside wrappers that repeat, concatenate or balance them."""
    if hasattr(dataset, 'datasets'):
        for each in dataset.datasets:
            yield from _inner_datasets(each)
    elif hasattr(dataset, 'dataset'):
        yield from _inner_datasets(dataset.dataset)
    else:
        yield dataset
