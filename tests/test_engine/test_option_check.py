"""Misspelt --cfg-options are refused; new ones that something reads are not."""

import pytest
from mmengine.config import Config

from knet_plugin.cli import resolve_config
from knet_plugin.engine.option_check import check_options, unread_options


@pytest.fixture(scope='module')
def panoptic():
    return Config.fromfile(resolve_config('knet-s3_r18-s_fpn_1xb8-adamw-1k_shapes-panoptic-128x128'))


@pytest.mark.parametrize(('option', 'nearest'), [
    ('modle.x', 'model'), ('model_.x', 'model'), ('train_dataloder.batch_size', 'train_dataloader'),
    ('train-cfg.max_iters', 'train_cfg'), ('randomnes.seed', 'randomness'), ('loadfrom', 'load_from'),
    ('train_cfg.max_iter', 'max_iters'), ('train_cfg.maxiters', 'max_iters'), ('model.backbone.dept', 'depth'),
    ('optim_wrapper.optimiser.lr', 'optimizer'), ('optim_wrapper.optimizer.weightdecay', 'weight_decay'),
    ('train_dataloader.batchsize', 'batch_size'), ('train_dataloader.dataset.data_rot', 'data_root'),
    ('train_dataloader.dataset.indeces', 'indices'), ('model.panoptic_head.num_thing_classes', 'num_things_classes'),
    ('model.test_cfg.max_per_image', 'max_per_img'),
    ('train_dataloader.dataset.pipeline.0.bakend_args', 'backend_args'),
    ('default_hooks.checkpoint.intervall', 'interval'), ('default_hooks.loger.interval', 'logger'),
    ('param_scheduler.0.ends', 'end'), ('model.panoptic_head.kernel_head.num_kernel', 'num_kernels'),
])
def test_misspelt(panoptic, option, nearest):
    with pytest.raises(ValueError, match=f"--cfg-options {option}: .*'{nearest}'"):
        check_options(panoptic, {option: 1})


@pytest.mark.parametrize('option', [
    'model.backbone.depth', 'randomness.seed', 'train_dataloader.dataset.indices', 'default_hooks.optimize.type',
    'default_hooks.optimize.dtype', 'model.test_cfg.mask_thr', 'model.test_cfg.semantic_on', 'train_cfg.val_begin',
    'load_from', 'resume', 'auto_scale_lr.enable', 'model.train_cfg.num_points', 'env_cfg.cudnn_benchmark',
    'default_hooks.checkpoint.max_keep_ckpts', 'default_hooks.checkpoint.save_best', 'runner_type', 'strategy.type',
    'train_dataloader.dataset.filter_cfg.min_size', 'param_scheduler.1.end', 'compile', 'visualizer.save_dir',
    'optim_wrapper.paramwise_cfg.custom_keys.neck.lr_mult', 'optim_wrapper.accumulative_counts', 'log_level',
    'model.backbone.init_cfg', 'train_dataloader.dataset.filter_cfg', 'train_dataloader.drop_last',
    'model.panoptic_head.with_cp', 'tta_model.tta_cfg', 'custom_imports.imports', 'val_evaluator.0.classwise',
])
def test_right(panoptic, option):
    check_options(panoptic, {option: 1})


def test_nothing_near(panoptic):
    with pytest.raises(ValueError, match='--cfg-options xyzzy.a'):
        check_options(panoptic, {'train_cfg.max_iters': 1, 'xyzzy.a': 1})


def test_variables_of_the_config_are_read_no_more(panoptic):
    assert unread_options(panoptic, {'data_root': 'x', 'train_cfg.max_iters': 1, 'image_size': 3}) == [
        'data_root', 'image_size']


@pytest.mark.parametrize('option', ['param_scheduler.9.end', 'param_scheduler.end'])
def test_positions_in_lists(panoptic, option):
    with pytest.raises(ValueError, match=f'--cfg-options {option}: .*below 2'):
        check_options(panoptic, {option: 1})
