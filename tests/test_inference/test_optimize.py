"""The optimised copy of a model: equal numbers, no training, and its hook."""

import copy
import logging
from types import SimpleNamespace

import pytest
import torch
from detection_cases import detector, golden_samples
from golden import Golden
from mmcv.ops import DeformConv2dPack
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.logging import MMLogger
from mmengine.model import BaseTTAModel
from mmengine.registry import HOOKS, DefaultScope
from mmengine.runner.priority import get_priority
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import _dynamo as dynamo
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from knet_plugin import optimize_for_inference
from knet_plugin.cli import resolve_config
from knet_plugin.inference.optimize import OptimizeForInferenceHook, largest_deviation, raw_outputs

PANOPTIC = 'knet-s3_r18-s_fpn_1xb8-adamw-1k_shapes-panoptic-128x128'
SEMANTIC = 'knet-s3_r18-s_fcn_1xb8-adamw-1k_shapes-128x128'
IMAGES = torch.randn(2, 3, 75, 53, generator=torch.Generator().manual_seed(1)).transpose(2, 3)
"""Of odd sizes, and not contiguous."""


def optimize(model, dtype=torch.float32, **options):
    return optimize_for_inference(model, dtype, **dict(inputs=IMAGES[:1]) | options)


def deviations(model, optimized, images):
    return largest_deviation(raw_outputs(model, images), raw_outputs(optimized, images))


@pytest.fixture
def records(monkeypatch):
    """What is logged, whatever level an earlier run has left the logger at."""
    found, logger = [], MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'isEnabledFor', lambda level: True)
    monkeypatch.setattr(logger, 'handle', found.append)
    return found


def randomize_norms(model):
    """Give every batch norm its own statistics: a wrong fusion of fresh norms would not show."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            for value, low, high in ((module.running_mean, -.5, .5), (module.running_var, .5, 2.),
                                     (module.weight.data, .5, 1.5), (module.bias.data, -.5, .5)):
                value.copy_(torch.rand(value.shape, generator=generator) * (high - low) + low)
    return model.eval()


def panoptic_config(**backbone):
    cfg = Config.fromfile(resolve_config(PANOPTIC))
    cfg.merge_from_dict({'model.backbone.base_channels': 8, 'model.neck.in_channels': [8, 16, 32, 64]})
    cfg.model.backbone.update(backbone)
    return cfg


def build(cfg, registry, scope):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope):
        return randomize_norms(registry.build(copy.deepcopy(cfg.model)))


@pytest.fixture(scope='module')
def panoptic():
    return build(panoptic_config(), MMDET_MODELS, 'mmdet')


@pytest.fixture(scope='module')
def semantic():
    return build(Config.fromfile(resolve_config(SEMANTIC)), MMSEG_MODELS, 'mmseg')


def norms(model):
    return sum(isinstance(module, _BatchNorm) for module in model.modules())


@pytest.mark.parametrize('kind, outputs', [('panoptic', {'class_logits', 'mask_logits'}), ('semantic', {'seg_logits'})])
def test_float32_gives_equal_numbers(kind, outputs, request):
    model = request.getfixturevalue(kind)
    optimized = optimize(model)
    found = deviations(model, optimized, IMAGES)
    assert found.keys() == outputs and max(found.values()) < 1e-4
    assert norms(model) > 10 and norms(optimized) == 0
    weight = optimized.backbone.layer1[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


@pytest.mark.parametrize('backbone', [
    dict(frozen_stages=2, norm_eval=True), dict(deep_stem=True, avg_down=True), dict(norm_cfg=dict(type='SyncBN')),
    dict(dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False), stage_with_dcn=(False, True, True, True),
         depth=50)
], ids=['frozen', 'deep_stem', 'SyncBN', 'DCN'])
def test_backbones(backbone):
    """mmcv's deformable convolution silently misreads maps with channels last, and has no code for bfloat16."""
    cfg = panoptic_config(**backbone)
    images = IMAGES[:1].repeat(1, 1, 2, 2)  # the smallest map of the DCN must have 3 x 3 pixels
    if 'dcn' in backbone:
        cfg.model.neck.in_channels = [32, 64, 128, 256]
    model = build(cfg, MMDET_MODELS, 'mmdet')
    for module in model.modules():
        if isinstance(module, DeformConv2dPack):
            nn.init.normal_(module.conv_offset.weight, std=.1)  # zeros make it an ordinary convolution
    optimized = optimize(model, inputs=images)
    assert max(deviations(model, optimized, images).values()) < 1e-4
    assert norms(optimized) == (13 if 'dcn' in backbone else 0)
    with torch.no_grad():
        low, plain = (each.extract_feat(images)[0] for each in (optimize(model, 'bfloat16', inputs=images), model))
    assert (low.float() - plain).abs().max() < .1 * plain.abs().max()


def test_norms_that_mmcv_would_fuse_wrongly_stay(panoptic):
    model = copy.deepcopy(panoptic)
    modules = model.backbone.layer1[0]._modules  # now in the order conv1, conv2, bn1, bn2
    modules.update({name: modules.pop(name) for name in ('bn1', 'bn2')})
    optimized = optimize(model)
    assert norms(optimized) == norms(model)
    assert max(deviations(model, optimized, IMAGES).values()) < 1e-4


def test_bfloat16_of_trained_weights_gives_nearly_the_same_result(records):
    golden = Golden('knet_panoptic_trained')
    model = detector(golden).eval()
    optimized = optimize(model, torch.bfloat16, inputs=golden['in/img'])
    with torch.no_grad():
        plain, low = (each(golden['in/img'], golden_samples(golden), mode='predict') for each in (model, optimized))
    for one, other in zip(plain, low, strict=True):
        assert (one.pred_sem_seg.sem_seg == other.pred_sem_seg.sem_seg).float().mean() > .99
        assert (one.pred_instances.scores[:3] - other.pred_instances.scores[:3]).abs().max() < .02
    found = deviations(model, optimized, golden['in/img'])
    assert all(1e-4 < deviation < .3 for deviation in found.values()), found
    message = records[-1].getMessage()
    assert all(f'{name} {value:.2g}' in message for name, value in found.items())


@pytest.mark.parametrize('kind', ['panoptic', 'semantic'])
def test_bfloat16_computes_in_16_bits_and_returns_float32(kind, request):
    optimized = optimize(request.getfixturevalue(kind), 'bfloat16')
    seen = []
    optimized.backbone.layer1[0].conv1.register_forward_hook(lambda *args: seen.append(args[-1].dtype))
    with torch.no_grad():
        features = optimized.extract_feat(IMAGES)
        outputs = optimized.panoptic_head.predict(features, []) if kind == 'panoptic' else [
            optimized.decode_head(features)]
    assert seen == [torch.bfloat16] and {output.dtype for output in outputs} == {torch.float32}


def test_deviations_beyond_rounding_are_warned_of(panoptic, records, monkeypatch):
    optimize(panoptic)
    with torch.autocast('cpu', torch.bfloat16):  # the caller's autocast does not count
        optimize(panoptic)
    assert [record.levelno for record in records] == [logging.INFO] * 2

    def spoil(model, *args):
        model.backbone.conv1.weight.mul_(1.1)

    monkeypatch.setattr('knet_plugin.inference.optimize.accelerate', spoil)
    optimize(panoptic)
    assert records[-1].levelno == logging.WARNING


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['panoptic', 'semantic'])
def test_each_part_is_compiled_once(kind, request):
    model = request.getfixturevalue(kind)
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    dynamo.reset()
    dynamo.utils.counters.clear()
    optimized = optimize(model, compile=dict(backend=count), inputs=IMAGES)
    assert max(deviations(model, optimized, IMAGES).values()) < 1e-4
    assert not dynamo.utils.counters['graph_break']
    assert len(graphs) == (3 if kind == 'panoptic' else 2)  # backbone, neck and head


def test_the_model_stays_as_it_was(panoptic):
    model = copy.deepcopy(panoptic).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimized = optimize(model, torch.bfloat16)
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not {id(each) for each in model.parameters()} & {id(each) for each in optimized.parameters()}
    assert not any(module._forward_hooks for module in model.modules())


def test_training_and_loading_are_refused(panoptic):
    optimized = optimize(panoptic)
    assert optimized.eval() is optimized and not optimized.training
    again = copy.deepcopy(optimized)  # as mmengine does for averaging
    assert max(deviations(panoptic, again, IMAGES).values()) < 1e-4
    assert again.backbone.forward.args[0].__self__ is again.backbone
    for refused in (optimized.train, again.train, nn.Sequential(optimized).train):
        with pytest.raises(RuntimeError, match='KNet'):
            refused()
    with pytest.raises(RuntimeError):
        optimized.load_state_dict(panoptic.state_dict(), strict=False)


@pytest.mark.parametrize('dtype', [torch.int8, 'int8'])
def test_unknown_types_are_refused(panoptic, dtype):
    with pytest.raises(ValueError, match=f'dtype={dtype!r}'):
        optimize(panoptic, dtype)


def test_other_detectors_get_their_features_in_float32():
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = randomize_norms(MMDET_MODELS.build(dict(
            type='RetinaNet', backbone=dict(type='ResNet', depth=18, base_channels=8),
            neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=8, num_outs=5),
            bbox_head=dict(type='RetinaHead', num_classes=2, in_channels=8, feat_channels=8))))
    optimized = optimize(model, torch.bfloat16)
    with torch.no_grad():
        features = optimized.extract_feat(IMAGES)
        assert all(each.dtype == torch.float32 and each.is_contiguous() for each in features)
        assert optimized.bbox_head(features)[0][0].dtype == torch.float32
    assert all(1e-5 < deviation < .05 for deviation in deviations(model, optimized, IMAGES).values())


def test_grey_images_and_sliding_windows():
    """Without given images, noise has the channels and the window size that the model expects."""
    grey, slide = (Config.fromfile(resolve_config(SEMANTIC)) for _ in range(2))
    grey.model.data_preprocessor.update(mean=[128.], std=[50.], bgr_to_rgb=False, rgb_to_bgr=False)
    grey.model.backbone.in_channels = 1
    slide.model.test_cfg = dict(mode='slide', crop_size=(32, 48), stride=(32, 48))
    for cfg, shape in (grey, (1, 1, 256, 256)), (slide, (1, 3, 32, 48)):
        model, seen = build(cfg, MMSEG_MODELS, 'mmseg'), []
        model.backbone.register_forward_hook(lambda module, args, output, seen=seen: seen.append(args[0].shape))
        optimize(model, inputs=None)
        assert set(seen) == {shape}


def test_hook_tests_the_optimised_model_and_restores_the_plain_one(panoptic):
    hook = HOOKS.build(dict(type='knet_plugin.OptimizeForInferenceHook', dtype='bfloat16'))
    augmented = type('Augmented', (BaseTTAModel, ), dict(merge_preds=None))(panoptic)
    for model in (panoptic, augmented):
        runner = SimpleNamespace(model=model)
        hook.before_test_epoch(runner)
        assert runner.model is model and norms(panoptic.test_step.__self__) == 0
        hook.after_test_epoch(runner)
        assert 'test_step' not in vars(panoptic)


def test_hook_comes_after_averaged_weights():
    """EMAHook swaps in the averaged weights at the same event."""
    assert get_priority(OptimizeForInferenceHook.priority) > get_priority(EMAHook.priority)
