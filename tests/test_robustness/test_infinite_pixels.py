"""NaN and infinite pixels: a training stops and names the image, predictions of the other images stay what they are."""

import argparse

import pytest
import torch
from hostile_models import TASKS, build_model, losses_of, make_batch, model_config, model_of, predictions_of
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch.utils.data import Dataset

from knet_plugin.cli import load_run_config
from knet_plugin.engine.finite_inputs import FiniteInputHook
from knet_plugin.semantic.checks import check_finite

IMAGES = [dict(size=(40, 33), masks=['box', 'noise'], label_map='noise')] * 3
BAD = [torch.nan, torch.inf, -torch.inf]


def batch_with(task, value, image=1):
    """Three images of floating point numbers, one of which has a pixel of this value."""
    batch = make_batch(task, IMAGES, torch.Generator().manual_seed(0))
    batch['inputs'] = [each.float() for each in batch['inputs']]
    batch['inputs'][image][1, 20, 20] = value
    return batch


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def statistics_of(model):
    return {name: value for name, value in weights_of(model).items() if 'running' in name}


def assert_same(left, right):
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('value', BAD)
def test_training_step_names_the_image(task, value):
    model = model_of(task)
    before = weights_of(model)
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), 0.1))
    # Of the segmentor, the head alone is ours, and it sees features.
    error, match = (FloatingPointError, r'logits of .*1\.jpg') if task == 'semantic' else (
        ValueError, r'got NaN or infinite values in 1\.jpg \(1\)')
    with pytest.raises(error, match=match):
        model.train().train_step(batch_with(task, value), optimizer)
    assert_same(weights_of(model), before)


@pytest.mark.parametrize('task', ['panoptic', 'instance'])
def test_detector_keeps_its_statistics(task):
    cfg = model_config(task)
    cfg.model.backbone.norm_eval = False
    model = build_model(cfg)
    before = weights_of(model)
    with pytest.raises(ValueError, match=r'1\.jpg'):
        losses_of(model, batch_with(task, torch.nan))
    assert_same(weights_of(model), before)
    losses_of(model, batch_with(task, 0.))
    assert any(not torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_float16_is_left_to_the_gradient_scaler():
    """An overflow of the logits is no reason to stop; the scaler skips the step."""
    samples = make_batch('semantic', IMAGES, torch.Generator().manual_seed(0))['data_samples']
    broken = torch.full((3, 10, 5, 5), torch.nan)
    with pytest.raises(FloatingPointError):
        check_finite(broken, samples)
    check_finite(broken.half(), samples)


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('value', BAD)
def test_predictions_of_the_others_are_unaffected(task, value):
    model = model_of(task)
    good, bad = (predictions_of(model, batch_with(task, pixel)) for pixel in (0., value))
    for image in (0, 2):
        if task == 'semantic':
            assert torch.equal(good[image].seg_logits.data, bad[image].seg_logits.data)
            continue
        for name in ('scores', 'labels', 'masks', 'bboxes'):
            assert torch.equal(good[image].pred_instances[name], bad[image].pred_instances[name])
        if task == 'panoptic':
            assert torch.equal(good[image].pred_panoptic_seg.sem_seg, bad[image].pred_panoptic_seg.sem_seg)
            assert torch.equal(good[image].pred_sem_seg.sem_seg, bad[image].pred_sem_seg.sem_seg)
    if task == 'semantic':
        assert (bad[1].pred_sem_seg.data < 10).all()
        return
    assert not bad[1].pred_instances.scores.any() and not bad[1].pred_instances.masks.any()
    if task == 'panoptic':
        assert (bad[1].pred_panoptic_seg.sem_seg == 10).all()  # void


@pytest.mark.parametrize('value', BAD)
def test_hook_stops_a_training_and_warns_a_test(value, caplog):
    batch, hook = batch_with('semantic', value, image=2), FiniteInputHook()
    with pytest.raises(ValueError, match=r'NaN or infinite values in 2\.jpg \(1\)'):
        hook.before_train_iter(None, 0, batch)
    logger = MMLogger.get_instance('finite-inputs-test')
    logger.addHandler(caplog.handler)
    for warn in (hook.before_val_iter, hook.before_test_iter):
        caplog.clear()
        warn(None, 0, batch)
        assert '2.jpg (1)' in caplog.text


def test_hook_passes_what_it_cannot_judge():
    hook = FiniteInputHook()
    integers = make_batch('semantic', IMAGES, torch.Generator().manual_seed(0))
    for batch in (integers, batch_with('semantic', 0.), dict(inputs=[[torch.full((3, 2, 2), torch.nan)]]), None, [1],
                  dict(inputs=torch.zeros(2, 3, 4, 4))):
        hook.before_train_iter(None, 0, batch)
    with pytest.raises(ValueError, match='an image without img_path'):
        hook.before_train_iter(None, 0, dict(inputs=torch.full((1, 3, 2, 2), torch.nan)))


@DATASETS.register_module(force=True)
class HostileImages(Dataset):
    """The images of ``batch_with``."""

    metainfo = dict(classes=[str(label) for label in range(10)])

    def __init__(self, task):
        self.batch = batch_with(task, torch.nan)

    def __len__(self):
        return len(self.batch['inputs'])

    def __getitem__(self, index):
        return {name: values[index] for name, values in self.batch.items()}


@pytest.mark.parametrize('task', TASKS)
def test_runner_stops_before_the_statistics_change(task, tmp_path):
    """Of the segmentor too, whose head would notice only after them."""
    cfg = model_config(task)
    cfg.model.backbone.norm_eval = False
    model = build_model(cfg)
    before = statistics_of(model)
    loader = dict(batch_size=3, num_workers=0, dataset=dict(type='mmengine.HostileImages', task=task),
                  sampler=dict(type='mmengine.DefaultSampler', shuffle=False),
                  collate_fn=dict(type='mmengine.pseudo_collate'))
    runner = Runner(model, str(tmp_path), train_dataloader=loader, train_cfg=dict(by_epoch=False, max_iters=2),
                    optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)), default_hooks=dict(checkpoint=None),
                    custom_hooks=[dict(type='knet_plugin.FiniteInputHook')], experiment_name=f'hostile-{task}',
                    default_scope=cfg.default_scope, log_level='ERROR')
    with pytest.raises(ValueError, match=r'NaN or infinite values in 1\.jpg \(1\)'):
        runner.train()
    assert_same(statistics_of(model), before)


@pytest.mark.parametrize('task', TASKS)
def test_every_run_of_the_tools_has_the_hook(task):
    cfg = load_run_config(argparse.Namespace(config=TASKS[task], local_rank=0, launcher='none', cfg_options=None,
                                             work_dir=None))
    assert [hook.type for hook in cfg.custom_hooks].count('knet_plugin.FiniteInputHook') == 1
