"""NaN and infinite pixels stop a training and name the image; predictions for other images do not change."""

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from robustness_models import TASKS, build_model, make_batch, model_config, model_of, predictions_of
from torch.utils.data import Dataset

from knet_plugin.engine import FiniteInputHook

IMAGES = [dict(size=(40, 33), masks=['box', 'noise'], label_map='noise')] * 3
BAD = [torch.nan, torch.inf, -torch.inf]


def batch_with(task, value):
    """Three images of floating point numbers; the second one has a pixel of this value."""
    batch = make_batch(task, IMAGES, 0)
    batch['inputs'] = [image.float() for image in batch['inputs']]
    batch['inputs'][1][1, 20, 20] = value
    return batch


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('value', BAD)
def test_predictions_of_other_images_do_not_change(task, value):
    good, bad = (predictions_of(model_of(task), batch_with(task, pixel)) for pixel in (0., value))
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


def test_validation_and_test_warn(caplog):
    logger = MMLogger.get_instance('infinite-pixels')
    logger.addHandler(caplog.handler)
    hook = FiniteInputHook()
    for warn in (hook.before_val_iter, hook.before_test_iter):
        caplog.clear()
        warn(None, 0, batch_with('semantic', torch.nan))
        assert '1.jpg (1)' in caplog.text


def test_what_cannot_be_checked_passes():
    hook = FiniteInputHook()
    augmented = dict(inputs=[[torch.full((3, 2, 2), torch.nan)]])
    for batch in (make_batch('semantic', IMAGES, 0), batch_with('semantic', 0.), augmented, None, [1]):
        hook.before_train_iter(None, 0, batch)


@DATASETS.register_module(force=True)
class ImagesWithNaN(Dataset):
    """The images of ``batch_with``."""

    metainfo = dict(classes=[str(label) for label in range(10)])

    def __init__(self, task):
        self.batch = batch_with(task, torch.nan)

    def __len__(self):
        return len(self.batch['inputs'])

    def __getitem__(self, index):
        return {name: values[index] for name, values in self.batch.items()}


@pytest.mark.parametrize('task', TASKS)
def test_training_stops_before_statistics_change(task, tmp_path):
    cfg = model_config(task)
    cfg.model.backbone.norm_eval = False
    model = build_model(cfg)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loader = dict(batch_size=3, num_workers=0, dataset=dict(type='mmengine.ImagesWithNaN', task=task),
                  sampler=dict(type='mmengine.DefaultSampler', shuffle=False),
                  collate_fn=dict(type='mmengine.pseudo_collate'))
    runner = Runner(model, str(tmp_path), train_dataloader=loader, train_cfg=dict(by_epoch=False, max_iters=2),
                    optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)), default_hooks=dict(checkpoint=None),
                    custom_hooks=[dict(type='knet_plugin.FiniteInputHook')], experiment_name=f'infinite-{task}',
                    default_scope=cfg.default_scope, log_level='ERROR')
    with pytest.raises(ValueError, match=r'1\.jpg \(1\)'):
        runner.train()
    after = {name: value for name, value in model.state_dict().items() if 'running' in name}
    assert after and all(torch.equal(before[name], value) for name, value in after.items())
