"""A run stops before its first iteration if model, data set and annotation file disagree on the classes."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from mmengine.model import BaseTTAModel, MMDistributedDataParallel
from mmengine.registry import DATASETS, DefaultScope

from knet_plugin.engine.class_check import ClassCheckHook, read_categories

THINGS, STUFF = ('cat', 'dog', 'cow'), ('sky', 'sea')
PANOPTIC = dict(classes=THINGS + STUFF, thing_classes=THINGS, stuff_classes=STUFF)
CATEGORIES = [dict(id=10 * i + 5, name=name, isthing=int(name in THINGS)) for i, name in enumerate(THINGS + STUFF)]


def model(things: int = 3, stuff: int = 2) -> torch.nn.Module:
    module = torch.nn.Identity()
    module.num_things_classes, module.num_stuff_classes = things, stuff
    return module


def dataset(folder: Path, kind: str = 'CocoPanopticDataset', categories: list[dict] | None = None, **metainfo):
    file = folder / 'annotations.json'
    file.write_text(json.dumps(dict(images=[], annotations=[], categories=categories or CATEGORIES)))
    if kind == 'CocoPanopticDataset':
        metainfo = PANOPTIC | metainfo
    with DefaultScope.overwrite_default_scope('mmdet'):
        return DATASETS.build(dict(type=kind, ann_file=str(file), data_prefix=dict(img='', seg=''), metainfo=metainfo,
                                   pipeline=[], lazy_init=True))


def instance(folder: Path, classes=THINGS, categories=None):
    return dataset(folder, 'CocoDataset', categories, classes=classes)


def loop(data):
    return SimpleNamespace(dataloader=SimpleNamespace(dataset=data))


def check(module: torch.nn.Module, data) -> None:
    ClassCheckHook().before_test(SimpleNamespace(model=module, test_loop=loop(data)))


def test_matching_classes_pass(tmp_path):
    check(model(), dataset(tmp_path))
    check(model(3, 0), instance(tmp_path))
    check(model(2, 0), instance(tmp_path, ('cat', 'cow')))  # some of the categories, in their order


def test_training_checks_both_data_sets(tmp_path):
    good, bad = dataset(tmp_path), instance(tmp_path)
    hook = ClassCheckHook()
    hook.before_train(SimpleNamespace(model=model(), train_loop=loop(good), val_loop=None))
    for train, val in ((good, bad), (bad, good)):
        with pytest.raises(ValueError, match='num_stuff_classes=2'):
            hook.before_train(SimpleNamespace(model=model(), train_loop=loop(train), val_loop=loop(val)))


@pytest.mark.parametrize(('things', 'stuff', 'message'), [
    (2, 3, 'num_things_classes=2 .*thing_classes of .*annotations.json has 3 names'),
    (3, 1, 'num_stuff_classes=1, .*stuff_classes of .*annotations.json has 2 names'),
])
def test_numbers_of_classes(tmp_path, things, stuff, message):
    with pytest.raises(ValueError, match=message):
        check(model(things, stuff), dataset(tmp_path))


def test_number_of_classes_of_an_instance_data_set(tmp_path):
    with pytest.raises(ValueError, match='num_things_classes=80 .*metainfo.classes of .*annotations.json has 3 names'):
        check(model(80, 0), instance(tmp_path))


def test_things_come_first(tmp_path):
    with pytest.raises(ValueError, match='metainfo.classes .*annotations.json .*sky'):
        check(model(), dataset(tmp_path, classes=STUFF + THINGS))


@pytest.mark.parametrize(('classes', 'categories', 'message'), [
    (('dog', 'cat', 'cow'), CATEGORIES, "label 0 is 'dog' in metainfo.classes, but 'cat' .*annotations.json"),
    (THINGS, CATEGORIES[::-1], "label 0 is 'cat' in metainfo.classes, but 'cow'"),
    (THINGS, CATEGORIES[:2], "label 2 is 'cow' in metainfo.classes, but None"),
    (THINGS, [*CATEGORIES, dict(id=99, name='dog')], "label 3 is None in metainfo.classes, but 'dog'"),
])
def test_names_and_their_order(tmp_path, classes, categories, message):
    with pytest.raises(ValueError, match=message):
        check(model(3, 0), instance(tmp_path, classes, categories))


@pytest.mark.parametrize(('index', 'value'), [(0, 0), (4, 1), (1, None)])
def test_isthing(tmp_path, index, value):
    categories = [dict(category, isthing=value if i == index else category['isthing'])
                  for i, category in enumerate(CATEGORIES)]
    with pytest.raises(ValueError, match=f"'{(THINGS + STUFF)[index]}' has isthing={value} .*annotations.json"):
        check(model(), dataset(tmp_path, categories=categories))


@pytest.mark.parametrize('wrap', [
    lambda data: RepeatDataset(data, times=3, lazy_init=True),
    lambda data: ConcatDataset([data, data], lazy_init=True),
    lambda data: torch.utils.data.Subset(ConcatDataset([data], lazy_init=True), [0]),
])
def test_wrapped_data_sets(wrap, tmp_path):
    data = wrap(instance(tmp_path))
    check(model(3, 0), data)
    with pytest.raises(ValueError, match='num_things_classes=2'):
        check(model(2, 0), data)


class Augmented(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        raise NotImplementedError


def test_wrapped_models(tmp_path, monkeypatch):
    monkeypatch.setattr(MMDistributedDataParallel, '__init__', torch.nn.Module.__init__)  # without processes
    distributed = MMDistributedDataParallel()
    distributed.module = model(2, 0)
    monkeypatch.setattr(Augmented, '__init__', torch.nn.Module.__init__)
    augmented = Augmented()
    augmented.module = model(2, 0)
    for module in (distributed, augmented):
        with pytest.raises(ValueError, match='num_things_classes=2'):
            check(module, instance(tmp_path))


def test_what_has_no_classes_is_not_checked(tmp_path):
    check(torch.nn.Identity(), dataset(tmp_path, thing_classes=()))
    check(model(), torch.utils.data.TensorDataset(torch.zeros(1)))
    check(model(), BaseDataset(metainfo=dict(classes=('only one',)), lazy_init=True))


@pytest.mark.parametrize('text', ['', '{"categories": [', '[]', '{"images": []}', '{"categories": [{"id": 1}]}'])
def test_files_without_categories(tmp_path, text):
    (tmp_path / 'file.json').write_text(text)
    with pytest.raises(ValueError, match='file.json'):
        read_categories(str(tmp_path / 'file.json'))
