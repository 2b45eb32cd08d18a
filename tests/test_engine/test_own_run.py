import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from knet_plugin.checkpoint.pretrained import Weights
from knet_plugin.cli import resolve_config
from knet_plugin.datasets.description import DataDescription
from knet_plugin.engine import own_defaults
from knet_plugin.engine.own_command import find_run, write_run
from knet_plugin.engine.own_run import CENTRES, OwnRun, class_settings
from knet_plugin.engine.own_run import MODELS as OWN_MODELS

TASKS = ('panoptic', 'instance', 'semantic')


@pytest.fixture
def description(tmp_path):
    description = DataDescription(tmp_path / 'zoo', 'panoptic', ('cat', 'dog'), ('sky',))
    (description.root / 'images/train').mkdir(parents=True)
    (description.root / 'images/train/a.jpg').touch()
    description.write()
    return description


def config(description, tmp_path, task, base, weights=None, minutes=None):
    run = OwnRun(description, task, resolve_config(base), weights, 64, 200, minutes, 4, 0)
    path = tmp_path / 'run.py'
    path.write_text(run.text())
    return Config.fromfile(path)


@pytest.mark.parametrize(('task', 'name'), [
    *((task, name) for model in CENTRES.values() for task, name in model.items()),
    *((task, parts[0]) for model in OWN_MODELS.values() for task, parts in model.items())])
def test_the_config_builds_a_model_with_the_classes_of_the_data(task, name, description, tmp_path):
    cfg = config(description, tmp_path, task, f'recipe/{name}')
    init_default_scope(cfg.default_scope)
    built = MODELS.build(cfg.model)
    assert built.num_classes == dict(panoptic=3, instance=2, semantic=3)[task]
    assert cfg.data_root == str(description.root) and cfg.train_dataloader.batch_size == 4
    backbone = cfg.model.backbone
    assert backbone.init_cfg is None and not cfg.model.get('pretrained')
    assert not backbone.get('norm_eval') and not backbone.get('with_cp')


def test_the_schedule_follows_from_the_iterations(description, tmp_path):
    cfg = config(description, tmp_path, 'panoptic', 'knet-s3_effnet-lite0_panoptic')
    warmup, decay = cfg.param_scheduler
    assert (warmup.end, decay.begin, decay.end) == (10, 10, 200)
    assert cfg.train_cfg == dict(type='IterBasedTrainLoop', max_iters=200, val_interval=40)
    assert cfg.default_hooks.checkpoint.save_best == 'coco_panoptic/PQ'


def test_a_published_config_keeps_its_recipe_and_loses_its_data(description, tmp_path):
    cfg = config(description, tmp_path, 'panoptic', 'knet-s3_r50_fpn_1x_coco-panoptic', weights='config', minutes=3)
    assert cfg.optim_wrapper.optimizer.lr == 0.0001 and cfg.model.backbone.init_cfg is not None
    assert cfg.train_dataloader.dataset.data_root == f'{description.root}/'
    assert '_delete_' not in cfg.pretty_text and len(cfg.val_evaluator) == 2
    hooks = [hook.type for hook in cfg.custom_hooks]
    assert hooks.count('knet_plugin.DataCheckHook') == 1 and cfg.custom_hooks[-1].minutes == 3


@pytest.mark.parametrize('whole', [True, False])
def test_weights_of_a_model_and_of_a_backbone(whole, description, tmp_path):
    cfg = config(description, tmp_path, 'semantic', 'knet-s3_effnet-lite0_semantic', Weights(Path('/w.pth'), whole))
    assert cfg.load_from == ('/w.pth' if whole else None)
    assert cfg.model.backbone.init_cfg == (None if whole else dict(type='Pretrained', checkpoint='/w.pth'))
    assert cfg.model.backbone.norm_eval


def test_heads_in_a_list_get_the_classes(description):
    model = dict(decode_head=[dict(type='A', num_classes=9, loss=dict(weight=1)), dict(type='B', num_classes=9)])
    heads = class_settings(model, description, 'semantic')['decode_head']
    assert heads == [dict(type='A', num_classes=3, loss=dict(weight=1)), dict(type='B', num_classes=3)]


@pytest.mark.parametrize(('task', 'named'), [('semantic', 'decode_head'), ('instance', 'panoptic_head')])
def test_a_model_of_another_task_is_refused(task, named, description):
    with pytest.raises(ValueError, match=named):
        class_settings(dict(roi_head=dict()), description, task)


def test_a_new_run_takes_a_free_name(tmp_path):
    first = write_run('a = 1\n', tmp_path, 'zoo')
    assert first.name == 'zoo.py' and write_run('a = 1\n', tmp_path, 'zoo') == first  # nothing was trained
    first.write_text('a = 2  # mine\n')
    assert write_run('a = 1\n', tmp_path, 'zoo').name == 'zoo-2.py'
    assert first.read_text() == 'a = 2  # mine\n'
    (tmp_path / 'zoo-2').mkdir()
    (tmp_path / 'zoo-2/iter_1.pth').touch()
    assert write_run('a = 1\n', tmp_path, 'zoo').name == 'zoo-3.py'
    assert find_run(tmp_path, 'zoo', 'a = 1').name == 'zoo-3.py' and find_run(tmp_path, 'other', 'a = 1') is None


def test_the_latest_run_of_the_same_data(tmp_path):
    for text in ('root = 1\na = 1\n', 'root = 1\na = 2\n', 'root = 2\n'):
        write_run(text, tmp_path, 'zoo')
    assert find_run(tmp_path, 'zoo', 'root = 1').name == 'zoo-2.py'
    assert find_run(tmp_path, 'zoo', 'root = 3') is None


def test_force_replaces_the_run_and_its_folder(tmp_path):
    write_run('a = 1\n', tmp_path, 'zoo')
    (tmp_path / 'zoo').mkdir()
    (tmp_path / 'zoo/best.pth').touch()
    assert write_run('a = 2\n', tmp_path, 'zoo', force=True).read_text() == 'a = 2\n'
    assert not (tmp_path / 'zoo').exists()


def test_iterations_follow_the_number_of_images(monkeypatch):
    monkeypatch.setattr(own_defaults.torch.cuda, 'is_available', lambda: False)
    assert [own_defaults.default_iterations(images, 8) for images in (5, 136, 5000)] == [600, 800, 1000]
    assert [own_defaults.default_loading(9, model)[0] for model in ('small', 'r50', 'swin')] == [4, 2, 2]
    assert own_defaults.default_loading(3, 'small')[0] == 3


def test_size_and_kernels_follow_the_objects(description, monkeypatch):
    monkeypatch.setattr(own_defaults.torch.cuda, 'is_available', lambda: False)
    cv2.imwrite(str(description.root / 'images/train/a.jpg'), np.zeros((400, 500, 3), np.uint8))
    (description.root / 'annotations').mkdir()

    def defaults(task, number, side):
        data = dict(images=[dict(id=1, height=400, width=500)],
                    annotations=[dict(image_id=1, area=side**2)] * number)
        (description.root / 'annotations/instances_train.json').write_text(json.dumps(data))
        return (own_defaults.default_short_side(description, task), own_defaults.default_kernels(description),
                own_defaults.small_objects(description))

    assert defaults('panoptic', 8, 120) == (192, 30, False)
    assert defaults('instance', 60, 20) == (256, 80, True)
    assert defaults('semantic', 400, 120) == (256, 150, False)


def test_the_config_takes_the_kernels(description, tmp_path):
    base = resolve_config('recipe/knet-s3_effnet-lite0_instance')
    path = tmp_path / 'run.py'
    path.write_text(OwnRun(description, 'instance', base, None, 64, 200, None, 4, 0, kernels=70).text())
    model = Config.fromfile(path).model
    assert model.panoptic_head.kernel_head.num_kernels == model.test_cfg.max_per_img == 70
    assert model.panoptic_head.kernel_head.channels == 64
