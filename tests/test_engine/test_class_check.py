"""A run stops before its first iteration if model, data set and annotation file do not mean the same classes."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import BaseDataset, ClassBalancedDataset, ConcatDataset, RepeatDataset
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel, BaseTTAModel, MMDistributedDataParallel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner

from knet_plugin.datasets.shapes import CLASSES, STUFF_CLASSES, THING_CLASSES
from knet_plugin.engine import class_check
from knet_plugin.engine.class_check import ClassCheckHook, read_categories

NUM_THINGS, NUM_STUFF = len(THING_CLASSES), len(STUFF_CLASSES)
PANOPTIC = dict(classes=CLASSES, thing_classes=THING_CLASSES, stuff_classes=STUFF_CLASSES)
PANOPTIC_FILE, INSTANCE_FILE = 'annotations/panoptic_train.json', 'annotations/instances_train.json'


pytestmark = pytest.mark.usefixtures('mmdet_scope')


@MODELS.register_module()
class ClassesOnly(BaseModel):
    """A model that knows no more than its numbers of classes."""

    def __init__(self, things: int | None = NUM_THINGS, stuff: int = NUM_STUFF) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        if things is not None:
            self.num_things_classes, self.num_stuff_classes = things, stuff

    def forward(self, inputs, data_samples=None, mode='loss'):
        return dict(loss=self.weight.sum()) if mode == 'loss' else data_samples


@METRICS.register_module()
class NoMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(zero=0)


def panoptic(root: Path, **metainfo) -> dict:
    return dict(type='CocoPanopticDataset', ann_file=PANOPTIC_FILE, data_root=f'{root}/', metainfo=PANOPTIC | metainfo,
                data_prefix=dict(img='train/', seg='annotations/panoptic_train/'),
                pipeline=[dict(type='LoadImageFromFile'), dict(type='PackDetInputs')])


def instance(root: Path, classes: tuple[str, ...] = THING_CLASSES) -> dict:
    return dict(type='CocoDataset', ann_file=INSTANCE_FILE, data_root=f'{root}/', metainfo=dict(classes=classes),
                data_prefix=dict(img='train/'), pipeline=[dict(type='LoadImageFromFile'), dict(type='PackDetInputs')])


def check(model: torch.nn.Module, dataset) -> None:
    dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset))
    ClassCheckHook().before_test(SimpleNamespace(model=model, test_loop=loop))


def edit_categories(file: Path, edit: Callable[[list[dict]], object]) -> None:
    content = json.loads(file.read_text())
    edit(content['categories'])
    file.write_text(json.dumps(content))


def runner(tmp_path: Path, **settings) -> Runner:
    """A run of one iteration, with the hook as configs have it."""
    loaders = {key: dict(dataset=dataset, batch_size=1, num_workers=0, collate_fn=dict(type='pseudo_collate'),
                         sampler=dict(type='DefaultSampler', shuffle=False))
               for key, dataset in settings.items() if key.endswith('_dataloader')}
    loops = dict(train_dataloader=dict(train_cfg=dict(by_epoch=True, max_epochs=1),
                                       optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1))),
                 val_dataloader=dict(val_cfg=dict(), val_evaluator=dict(type='NoMetric')),
                 test_dataloader=dict(test_cfg=dict(), test_evaluator=dict(type='NoMetric')))
    for key in loaders:
        loaders = loaders | loops[key]
    return Runner(settings['model'], str(tmp_path / 'run'), **loaders, log_level='ERROR', default_scope='mmdet',
                  default_hooks=dict(checkpoint=None), custom_hooks=[dict(type='knet_plugin.ClassCheckHook')])


def test_what_agrees_runs(shapes, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(class_check, 'read_categories',
                        lambda *args: read.append(args[0]) or read_categories(*args))
    run = runner(tmp_path, model=dict(type='ClassesOnly'), train_dataloader=panoptic(shapes),
                 val_dataloader=panoptic(shapes), test_dataloader=panoptic(shapes))
    run.train()
    assert len(read) == 2  # training and validation once each, though the validation has its own turn as well
    run.val()
    assert len(read) == 2
    run.test()
    assert read == [str(shapes / PANOPTIC_FILE)] * 3
    check(ClassesOnly(NUM_THINGS, 0), instance(shapes))


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_every_kind_of_run_is_stopped(split, shapes, tmp_path):
    wrong = panoptic(shapes, thing_classes=THING_CLASSES[:-1])
    run = runner(tmp_path, model=dict(type='ClassesOnly'), **{f'{split}_dataloader': wrong})
    with pytest.raises(ValueError, match='num_things_classes=6, but metainfo.thing_classes'):
        getattr(run, split)()


def test_training_is_stopped_by_its_validation_set(shapes, tmp_path):
    run = runner(tmp_path, model=dict(type='ClassesOnly'), train_dataloader=panoptic(shapes),
                 val_dataloader=instance(shapes))
    with pytest.raises(ValueError, match='instances_train.json names 6'):
        run.train()
    assert run.iter == 0


@pytest.mark.parametrize(('things', 'stuff', 'message'), [
    (5, 5, 'num_things_classes=5, but metainfo.thing_classes of the data set .*panoptic_train.json names 6: '
           "'warm_disk', "),
    (6, 3, 'num_stuff_classes=3, but metainfo.stuff_classes of the data set .*panoptic_train.json names 4: '
           "'warm_stripes', "),
])
def test_numbers_of_things_and_stuff(shapes, things, stuff, message):
    with pytest.raises(ValueError, match=message):
        check(ClassesOnly(things, stuff), panoptic(shapes))


def test_number_of_classes(shapes):
    with pytest.raises(ValueError, match=r'num_things_classes=80 and num_stuff_classes=0, 80 classes, but '
                                         r'metainfo.classes of the data set .*instances_train.json names 6: .*star'):
        check(ClassesOnly(80, 0), instance(shapes))


def test_own_classes_do_not_inherit_the_things_of_coco(shapes):
    cfg = panoptic(shapes)
    cfg['metainfo'] = dict(classes=CLASSES)  # mmdet then takes the rest from COCO
    with pytest.raises(ValueError, match='metainfo.thing_classes .* names 80: .* and 74 more'):
        check(ClassesOnly(), cfg)


def test_things_come_first(shapes):
    with pytest.raises(ValueError, match="6 things first .* 'warm_stripes', .* not in metainfo.thing_classes"):
        check(ClassesOnly(), panoptic(shapes, classes=STUFF_CLASSES + THING_CLASSES))


def test_classes_in_another_order_than_the_file(shapes):
    swapped = (THING_CLASSES[1], THING_CLASSES[0], *THING_CLASSES[2:])
    message = (r"another order than the categories of .*{}_train.json: objects of category 'warm_disk' \(id 1\) get "
               "the label 0, which metainfo.classes calls 'cool_disk'")
    with pytest.raises(ValueError, match=message.format('instances')):
        check(ClassesOnly(NUM_THINGS, 0), instance(shapes, swapped))
    with pytest.raises(ValueError, match=message.format('panoptic')):
        check(ClassesOnly(), panoptic(shapes, classes=swapped + STUFF_CLASSES))


def test_categories_in_another_order_than_the_classes(root):
    edit_categories(root / INSTANCE_FILE, list.reverse)
    with pytest.raises(ValueError, match=r"category 'star' \(id 6\) get the label 0, .* calls 'warm_disk'"):
        check(ClassesOnly(NUM_THINGS, 0), instance(root))


def test_part_of_the_categories_in_their_order(shapes):
    check(ClassesOnly(2, 0), instance(shapes, (THING_CLASSES[1], THING_CLASSES[4])))


def test_missing_category(root):
    edit_categories(root / INSTANCE_FILE, lambda categories: categories.pop(2))
    with pytest.raises(ValueError, match="names 'warm_square', but .*instances_train.json has no such categories, only "
                                         "'warm_disk', "):
        check(ClassesOnly(NUM_THINGS, 0), instance(root))


def test_repeated_category(root):
    edit_categories(root / INSTANCE_FILE, lambda categories: categories.append(dict(id=99, name='ring')))
    with pytest.raises(ValueError, match="6 classes, which are 7 categories .*: 'ring' occurs more than once"):
        check(ClassesOnly(NUM_THINGS, 0), instance(root))


@pytest.mark.parametrize(('index', 'value', 'role'), [(0, 0, 'one'), (7, 1, 'not one'), (7, None, 'not one')])
def test_isthing(root, index, value, role):
    dataset = DATASETS.build(panoptic(root))  # first, as mmdet itself fails at a file without isthing
    edit_categories(root / PANOPTIC_FILE, lambda categories: categories[index].update(isthing=value))
    with pytest.raises(ValueError, match=rf"category '{CLASSES[index]}' \(id {index + 1}\) .* has isthing={value}, but "
                                         f'is {role} of metainfo.thing_classes'):
        check(ClassesOnly(), dataset)


@pytest.mark.parametrize('wrap', [
    lambda dataset: RepeatDataset(dataset, times=3),
    lambda dataset: ConcatDataset([dataset, dataset]),
    lambda dataset: ClassBalancedDataset(dataset, oversample_thr=0.1),
    lambda dataset: torch.utils.data.Subset(ConcatDataset([dataset]), [0]),
])
def test_wrapped_data_sets(wrap, shapes):
    dataset = wrap(DATASETS.build(instance(shapes)))
    check(ClassesOnly(NUM_THINGS, 0), dataset)
    with pytest.raises(ValueError, match='num_things_classes=5'):
        check(ClassesOnly(5, 0), dataset)


def test_every_joined_data_set_is_checked(shapes, root):
    edit_categories(root / INSTANCE_FILE, list.reverse)
    both = ConcatDataset([DATASETS.build(instance(shapes)), DATASETS.build(instance(root))])
    with pytest.raises(ValueError, match=str(root)):
        check(ClassesOnly(NUM_THINGS, 0), both)


class Augmented(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        raise NotImplementedError


def test_wrapped_models(shapes, monkeypatch):
    # Without the processes of a distributed run: what matters is how the hook finds the model inside.
    monkeypatch.setattr(MMDistributedDataParallel, '__init__', torch.nn.Module.__init__)
    distributed = MMDistributedDataParallel()
    distributed.module = ClassesOnly(5, 0)
    for model in (distributed, Augmented(ClassesOnly(5, 0))):
        with pytest.raises(ValueError, match='num_things_classes=5'):
            check(model, instance(shapes))


def test_what_cannot_be_compared_is_passed_over(shapes):
    check(ClassesOnly(None), panoptic(shapes, thing_classes=()))
    check(ClassesOnly(), torch.utils.data.TensorDataset(torch.zeros(1)))
    check(ClassesOnly(), BaseDataset(metainfo=dict(classes=('only one',)), lazy_init=True))  # without ann_file


def categories_like(text: str, tmp_path: Path) -> list[dict]:
    file = tmp_path / 'file.json'
    file.write_text(text)
    return read_categories(file)


def test_categories_are_read_without_parsing_the_rest(tmp_path):
    categories = [dict(id=i, name=f'{i} ü "]') for i in range(3)]
    after = '{"info": {}, "annotations": [not valid at all], "categories" :\n' + json.dumps(categories) + '}'
    assert categories_like(after, tmp_path) == categories
    before = '{"categories": ' + json.dumps(categories, ensure_ascii=False) + ', "annotations": [not valid at all]}'
    assert categories_like(before, tmp_path) == categories
    many = [dict(id=i, name='ü' * 100) for i in range(2000)]  # more than is read at first, and cut within a character
    text = json.dumps(many, ensure_ascii=False)
    assert categories_like(f'{{"categories": {text}, "annotations": [not valid at all]}}', tmp_path) == many


@pytest.mark.parametrize('other', [
    dict(info=dict(categories=[dict(id=7, name='another')])),
    dict(info=dict(categories=['a', 'b'], text='"categories": [{"id": 1}]')),
    dict(annotations=[dict(categories=[])]),
    dict(images=[dict(categories=[dict(id=7, name='another')])]),
])
def test_categories_of_something_else(tmp_path, other):
    categories = [dict(id=1, name='a'), dict(id=2, name='b')]
    for content in (other | dict(categories=categories), dict(categories=categories) | other):
        assert categories_like(json.dumps(content), tmp_path) == categories


@pytest.mark.parametrize(('text', 'message'), [
    ('', 'no valid JSON'), ('{"categories": [', 'no valid JSON'), ('[]', 'no list "categories"'),
    ('{"images": []}', 'no list "categories"'), ('{"categories": [{"id": 1}]}', 'no list "categories"'),
])
def test_files_without_categories(tmp_path, text, message):
    with pytest.raises(ValueError, match=f'file.json .*{message}|file.json is {message}'):
        categories_like(text, tmp_path)
