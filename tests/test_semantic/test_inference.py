"""The head in mmseg's own segmentor, runner, TTA model and inferencer."""

import copy

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.runner import Runner
from mmseg.apis import MMSegInferencer
from mmseg.models import SegTTAModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from knet_plugin.cli import resolve_config
from knet_plugin.datasets.shapes import CLASSES, make_shapes

NAME = 'knet-s3_r18-s_fcn_1xb8-adamw-1k_shapes-128x128'


@pytest.fixture(scope='module')
def cfg(tmp_path_factory):
    root = tmp_path_factory.mktemp('shapes')
    make_shapes(root / 'data', num_train=8, num_val=4, size=64, seed=0)
    cfg = Config.fromfile(resolve_config(NAME))
    cfg.model.data_preprocessor.size = (64, 64)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(root / 'data')
        next(step for step in loader.dataset.pipeline if step.type == 'Resize').scale = (64, 64)
        loader.update(batch_size=4, num_workers=0, persistent_workers=False)
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.default_hooks.checkpoint.interval = 1
    cfg.log_level = 'ERROR'
    cfg.work_dir = str(root / 'work')
    return cfg


@pytest.fixture(scope='module')
def checkpoint(cfg):
    """Train for two iterations and evaluate, in mmengine's runner."""
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert 0 <= runner.message_hub.get_scalar('val/mIoU').current() <= 100
    return f'{cfg.work_dir}/iter_2.pth'


def build_model(cfg, **test_cfg):
    torch.manual_seed(0)
    init_default_scope('mmseg')
    with DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build(cfg.model | dict(test_cfg=ConfigDict(test_cfg))).eval()


def batch(height=64, width=64, number=1):
    size = (height, width)
    meta = dict(img_shape=size, ori_shape=size, pad_shape=size, img_path='made-up')
    samples = [SegDataSample(metainfo=meta) for _ in range(number)]
    return torch.randn(number, 3, height, width, generator=torch.Generator().manual_seed(0)), samples


def test_sliding_window(cfg):
    """A window as large as the image is the whole image; smaller ones give a result of its size."""
    images, samples = batch(64, 64)
    whole = build_model(cfg, mode='whole').predict(images, copy.deepcopy(samples))[0].seg_logits.data
    one = build_model(cfg, mode='slide', crop_size=(64, 64), stride=(64, 64)).predict(images, copy.deepcopy(samples))
    torch.testing.assert_close(one[0].seg_logits.data, whole)
    images, samples = batch(70, 90)
    many = build_model(cfg, mode='slide', crop_size=(64, 64), stride=(32, 32)).predict(images, samples)
    assert many[0].seg_logits.data.shape == (len(CLASSES), 70, 90)


def test_whole_image_of_any_size(cfg):
    model = build_model(cfg, mode='whole')
    for height, width in ((5, 3), (33, 65), (1, 1)):
        images, samples = batch(height, width)
        assert model.predict(images, samples)[0].pred_sem_seg.data.shape == (1, height, width)


def test_tta(cfg):
    tta = SegTTAModel(module=build_model(cfg, mode='whole'))
    images, samples = batch()
    flipped = copy.deepcopy(samples)
    flipped[0].set_metainfo(dict(flip=True, flip_direction='horizontal'))
    samples[0].set_metainfo(dict(flip=False))
    data = dict(inputs=[[images[0]], [images[0].flip(-1)]], data_samples=[samples, flipped])
    with torch.no_grad():
        result = tta.test_step(data)
    assert result[0].pred_sem_seg.data.shape[-2:] == (64, 64)


def test_resume_and_load(cfg, checkpoint):
    again = copy.deepcopy(cfg)
    again.train_cfg.update(max_iters=3, val_interval=3)
    again.resume = True
    runner = Runner.from_cfg(again)
    runner.train()
    assert runner.iter == 3


def test_inferencer(cfg, checkpoint, tmp_path):
    inferencer = MMSegInferencer(copy.deepcopy(cfg), weights=checkpoint, device='cpu')
    image = np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)
    result = inferencer(image, show=False, out_dir=str(tmp_path))
    assert result['predictions'].shape == (48, 80)
    assert {path.parent.name for path in tmp_path.rglob('*.*g')} == {'pred', 'vis'}


def test_num_classes_other_than_the_data_set_s_is_refused(cfg):
    """mmseg itself lets such a model train."""
    small = copy.deepcopy(cfg)
    small.model.decode_head.kernel_generate_head.num_classes = 4
    small.work_dir += '_small'
    with pytest.raises(ValueError, match='num_classes=4'):
        Runner.from_cfg(small).train()
