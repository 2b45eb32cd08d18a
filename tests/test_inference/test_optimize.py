"""The optimised copy of a model: the same numbers, no training, and its way into runners and inferencers."""

import copy
import logging
import re

import numpy as np
import pytest
import torch
from detection_cases import detector, golden_samples
from golden import Golden
from mmcv.cnn import ConvModule
from mmcv.ops import DeformConv2dPack, ModulatedDeformConv2dPack
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmengine.model import BaseTTAModel, MMDistributedDataParallel
from mmengine.registry import DATASETS, METRICS, DefaultScope
from mmengine.runner import Runner
from mmseg.apis import MMSegInferencer
from mmseg.registry import MODELS as MMSEG_MODELS
from mmseg.structures import SegDataSample
from small_runs import run, small_config, small_data
from torch import _dynamo as dynamo
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from knet_plugin import optimize_for_inference
from knet_plugin.cli import resolve_config
from knet_plugin.compat import release
from knet_plugin.inference import Deviation, OptimizeForInferenceHook, largest_deviation
from knet_plugin.inference.fusion import find_conv_bn_pairs, fuse_pairs

PANOPTIC = 'knet-s3_r18-s_fpn_1xb8-adamw-1k_shapes-panoptic-128x128'
SEMANTIC = 'knet-s3_r18-s_fcn_1xb8-adamw-1k_shapes-128x128'
ODD = torch.randn(2, 3, 75, 53, generator=torch.Generator().manual_seed(1)).flip(-1).transpose(2, 3)
assert not ODD.is_contiguous()
FEW = ODD[:1, :, :, :33]  # to measure on, where that is not what is tested


def optimize(model, dtype=torch.float32, **options):
    return optimize_for_inference(model, dtype, **dict(inputs=FEW) | options)


def logged(monkeypatch):
    """The records that the current logger is given from now on, whatever level an earlier run has left it at."""
    records, logger = [], MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'isEnabledFor', lambda level: True)
    monkeypatch.setattr(logger, 'handle', records.append)
    return records


def spread(model):
    """Give every batch norm its own statistics: with those of a new one, a wrong fusion would not show."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            for value, low, high in ((module.running_mean, -.5, .5), (module.running_var, .5, 2.),
                                     (module.weight.data, .5, 1.5), (module.bias.data, -.5, .5)):
                value.copy_(torch.rand(value.shape, generator=generator) * (high - low) + low)
    return model.eval()


def panoptic_config(**backbone):
    cfg = Config.fromfile(resolve_config(PANOPTIC))
    cfg.merge_from_dict({'model.backbone.base_channels': 8, 'model.neck.in_channels': [8, 16, 32, 64],
                         'model.test_cfg.instance_score_thr': 0.0, 'model.test_cfg.overlap_thr': 0.0})
    cfg.model.backbone.update(backbone)
    return cfg


def semantic_config():
    return Config.fromfile(resolve_config(SEMANTIC))


def built(cfg, registry, scope):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope):
        return spread(registry.build(copy.deepcopy(cfg.model)))


@pytest.fixture(scope='module')
def panoptic():
    return built(panoptic_config(), MMDET_MODELS, 'mmdet')


@pytest.fixture(scope='module')
def semantic():
    return built(semantic_config(), MMSEG_MODELS, 'mmseg')


def norms(model):
    return sum(isinstance(module, _BatchNorm) for module in model.modules())


def logits(model, images):
    """By the way of the model's own predictions, up to the read-out."""
    with torch.no_grad():
        if hasattr(model, 'panoptic_head'):
            return dict(zip(('classes', 'masks'), model.panoptic_head.predict(model.extract_feat(images), []),
                            strict=True))
        meta = dict(img_shape=images.shape[-2:], ori_shape=images.shape[-2:])
        return dict(seg=model.encode_decode(images, [meta] * len(images)))


def relative(actual, expected):
    assert actual.keys() == expected.keys()
    return max(((actual[key] - expected[key]).abs().max() / expected[key].abs().max()).item() for key in expected)


@pytest.mark.parametrize('kind', ['panoptic', 'semantic'])
def test_float32_is_the_same(kind, request):
    model = request.getfixturevalue(kind)
    optimized = optimize(model)
    assert norms(model) > 10 and norms(optimized) == 0
    assert relative(logits(optimized, ODD), logits(model, ODD)) < 1e-4
    weight = optimized.backbone.layer1[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


@pytest.mark.parametrize('backbone', [
    dict(frozen_stages=2, norm_eval=True), dict(deep_stem=True, avg_down=True), dict(norm_cfg=dict(type='SyncBN')),
    dict(dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False), stage_with_dcn=(False, True, True, True),
         depth=50)
], ids=['frozen', 'deep_stem', 'SyncBN', 'DCN'])
def test_backbones(backbone):
    cfg = panoptic_config(**backbone)
    images = ODD[:1].repeat(1, 1, 2, 2)  # the smallest map of the DCN must have 3 x 3
    if 'dcn' in backbone:
        cfg.model.neck.in_channels = [32, 64, 128, 256]
    model = built(cfg, MMDET_MODELS, 'mmdet')
    for module in model.modules():
        if isinstance(module, DeformConv2dPack | ModulatedDeformConv2dPack):
            nn.init.normal_(module.conv_offset.weight, std=.1)  # it starts with zeros, an ordinary convolution
    optimized = optimize(model, inputs=images)
    assert relative(logits(optimized, images), logits(model, images)) < 1e-4
    deformed = sum(isinstance(module, DeformConv2dPack) for module in model.modules())
    assert norms(optimized) == deformed == (13 if 'dcn' in backbone else 0)
    low = optimize(model, torch.bfloat16, inputs=images)  # for which the operator has no code
    assert relative(dict(f=low.extract_feat(images)[0].float()), dict(f=model.extract_feat(images)[0])) < .1


def test_what_is_more_than_rounding_is_warned_of(monkeypatch):
    """Given channels last, the modulated deformable convolution reads them in the wrong order without a word."""
    cfg = panoptic_config(depth=50, dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=False),
                          stage_with_dcn=(False, False, False, True))
    cfg.model.neck.in_channels = [32, 64, 128, 256]
    model, records = built(cfg, MMDET_MODELS, 'mmdet'), logged(monkeypatch)
    optimize(model)
    assert [record.levelno for record in records] == [logging.INFO]
    monkeypatch.setattr('knet_plugin.inference.forwards._is_host_operator', lambda module: False)
    optimize(model)
    assert records[-1].levelno == logging.WARNING and 'KNet may not be fit for channels' in records[-1].getMessage()


class Tangled(nn.Module):
    """What must not be fused: the order of construction says nothing, or something stands between."""

    def __init__(self):
        super().__init__()
        self.pre = ConvModule(4, 4, 3, norm_cfg=dict(type='BN'), order=('norm', 'act', 'conv'))
        self.shared, self.first, self.second = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.conv, self.act, self.norm = nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True), nn.BatchNorm2d(4)
        self.forked, self.left, self.right = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.twice, self.after = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.batch = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
        self.good = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2, bias=True), nn.BatchNorm2d(4))

    def forward(self, x):
        x = self.pre(x)
        x = self.first(self.shared(x)) + self.second(self.shared(x))
        x = self.norm(self.act(self.conv(x)))
        x = self.forked(x)
        x = self.left(x) - self.right(x)
        x = self.twice(x) + self.after(self.twice(x))
        return self.good(self.batch(x))


def test_only_what_follows_a_convolution_and_nothing_else_does_is_fused():
    torch.manual_seed(0)
    model = Tangled().eval()
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(.5, 2)
    images = torch.randn(2, 4, 9, 7)
    with torch.no_grad():
        expected, pairs = find_conv_bn_pairs(model, lambda: model(images))
        assert pairs == [(model.good[0], model.good[1])]
        fuse_pairs(model, pairs)
        torch.testing.assert_close(model(images), expected)
    assert isinstance(model.good[1], nn.Identity) and not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize('kind', ['panoptic', 'semantic'])
def test_bfloat16_is_near_and_read_out_in_float32(kind, request):
    model = request.getfixturevalue(kind)
    optimized = optimize(model, torch.bfloat16)
    seen = []
    optimized.backbone.layer1[0].conv1.register_forward_hook(lambda *args: seen.append(args[-1].dtype))
    actual, expected = logits(optimized, ODD), logits(model, ODD)
    assert seen == [torch.bfloat16] and {value.dtype for value in actual.values()} == {torch.float32}
    for key, value in expected.items():  # on average: of random weights, single hard masks flip
        error = (actual[key] - value).abs().mean() / value.std()
        assert 1e-5 < error < .05, (key, error)


def test_only_what_is_read_is_converted(panoptic):
    optimized = optimize(panoptic, torch.bfloat16)
    with torch.no_grad():
        feats = optimized.extract_feat(FEW)
        proposals, updates = optimized.panoptic_head.stages(feats, last_only=True)
        outputs = optimized.panoptic_head(feats)
    assert proposals.mask_logits.dtype == torch.bfloat16 and proposals.semantic_logits is None
    assert [update.class_logits is None for update in updates] == [True] * (len(updates) - 1) + [False]
    read = [*updates[-1], *(each for part in outputs for each in part)]
    assert {each.dtype for each in read} == {torch.float32} and all(each.is_contiguous() for each in read)


def test_bfloat16_of_trained_weights_gives_nearly_the_same_result():
    golden = Golden('knet_panoptic_trained')
    model = detector(golden).eval()
    optimized = optimize(model, torch.bfloat16, inputs=golden['in/img'])
    with torch.no_grad():
        plain, low = (each(golden['in/img'], golden_samples(golden), mode='predict') for each in (model, optimized))
    for one, other in zip(plain, low, strict=True):
        assert (one.pred_sem_seg.sem_seg == other.pred_sem_seg.sem_seg).float().mean() > .99
        assert (one.pred_instances.scores[:3] - other.pred_instances.scores[:3]).abs().max() < .02
    deviations = largest_deviation(model, optimized, golden['in/img'])
    assert set(deviations) == {'class_logits', 'mask_logits'}
    assert all(1e-4 < deviation.relative < .3 for deviation in deviations.values()), deviations


@pytest.mark.skipif(release(torch.__version__) < (2, 6), reason='this torch cannot compile what the hosts decorate')
@pytest.mark.parametrize('kind', ['panoptic', 'semantic'])
def test_compiles_each_part_to_one_graph(kind, request):
    model = request.getfixturevalue(kind)
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    dynamo.reset()
    dynamo.utils.counters.clear()
    optimized = optimize(model, compile=dict(backend=count), inputs=ODD)
    assert relative(logits(optimized, ODD), logits(model, ODD)) < 1e-4
    assert not dynamo.utils.counters['graph_break']
    assert len(graphs) == (3 if kind == 'panoptic' else 2)  # backbone, neck and head


def test_compiler_that_fails_is_named(panoptic):
    def broken(graph, inputs):
        raise OSError('no compiler')

    with pytest.raises(RuntimeError, match=r'(?s)KNet does not run with .*compile=\{.* does without: .*no compiler'):
        optimize(panoptic, compile=dict(backend=broken))


def test_the_model_stays_as_it_was(panoptic):
    model = copy.deepcopy(panoptic).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimized = optimize(model, torch.bfloat16)
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not {id(each) for each in model.parameters()} & {id(each) for each in optimized.parameters()}
    assert not any(module._forward_hooks for module in model.modules())
    model.eval().train()
    with pytest.raises(ValueError, match='plain must be in eval mode .* KNet in training mode'):
        largest_deviation(model, optimized)


def test_training_and_loading_are_refused(panoptic):
    optimized = optimize(panoptic)
    assert optimized.eval() is optimized and not optimized.training
    for refused in (optimized.train, nn.Sequential(optimized).train):
        with pytest.raises(RuntimeError, match='this KNet is optimised for inference'):
            refused()
    with pytest.raises(RuntimeError, match='load them into the plain model'):
        optimized.load_state_dict(panoptic.state_dict(), strict=False)
    again = copy.deepcopy(optimized)  # as test-time augmentation and averaging do
    assert relative(logits(again, ODD), logits(panoptic, ODD)) < 1e-4
    with pytest.raises(RuntimeError, match='this KNet is optimised for inference'):
        again.train()


@pytest.mark.parametrize(('options', 'error', 'message'), [
    (dict(dtype=torch.int8), ValueError, 'dtype must be one of torch.float32, .*, got dtype=torch.int8'),
    (dict(dtype='bfloat16'), TypeError, "dtype must be a torch.dtype, got dtype='bfloat16'"),
    (dict(dtype=torch.float16), ValueError, 'dtype=torch.float16 is for GPUs'),
    (dict(compile='inductor'), TypeError, "compile must be .*, got compile='inductor'"),
    (dict(channels_last='no'), TypeError, "channels_last must be True or False, got channels_last='no'"),
    (dict(compile=dict(mode='nonsense')), RuntimeError, "does not run with .* compile={'mode': 'nonsense'}"),
    (dict(inputs=[torch.zeros(3, 9, 9)]), TypeError, r'inputs must be .* \(B, C, H, W\), got list'),
    (dict(inputs=torch.zeros(3, 9, 9)), TypeError, r'inputs must be .* \(B, C, H, W\), got \(3, 9, 9\)'),
    (dict(inputs=torch.zeros(1, 5, 9, 9)), RuntimeError, r'KNet does not run on inputs of the shape \(1, 5, 9, 9\)'),
])
def test_wrong_options(panoptic, options, error, message):
    with pytest.raises(error, match=message):
        optimize(panoptic, **options)


def test_wrong_models(panoptic):
    with pytest.raises(ValueError, match='got a KNet that is optimised already'):
        optimize(optimize(panoptic))
    with pytest.raises(TypeError, match='got Linear'):
        largest_deviation(nn.Linear(1, 1).eval(), panoptic, ODD)
    with pytest.raises(TypeError, match='got Linear'):
        optimize(nn.Linear(1, 1), torch.bfloat16)
    headless = copy.deepcopy(panoptic)
    headless.encoder = headless.__dict__['_modules'].pop('backbone')
    with pytest.raises(ValueError, match='KNet has no backbone, so dtype=torch.bfloat16'):
        optimize(headless, torch.bfloat16)


def test_a_deviation_is_found_and_logged(panoptic, monkeypatch):
    optimized = optimize(panoptic)
    with torch.no_grad():
        optimized.panoptic_head.kernel_update_head[-1].classifier.fc_cls.bias += .25
    found = largest_deviation(panoptic, optimized, FEW)
    assert found['class_logits'].absolute == pytest.approx(.25, abs=1e-3) and found['mask_logits'].relative < 1e-4
    assert Deviation(0., 0.).relative == 0
    records = logged(monkeypatch)
    optimize_for_inference(panoptic)
    assert [record.levelno for record in records] == [logging.INFO]
    assert re.search(r'Largest deviation .* \(1, 3, 256, 256\): class_logits .* of .*, mask_logits ',
                     records[0].getMessage())


def test_other_models_of_the_hosts_have_their_features_in_float32():
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = spread(MMDET_MODELS.build(dict(
            type='RetinaNet', backbone=dict(type='ResNet', depth=18, base_channels=8),
            neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=8, num_outs=5),
            bbox_head=dict(type='RetinaHead', num_classes=2, in_channels=8, feat_channels=8))))
    optimized = optimize(model, torch.bfloat16)
    with torch.no_grad():
        features, expected = optimized.extract_feat(ODD), model.extract_feat(ODD)
        assert all(each.dtype == torch.float32 and each.is_contiguous() for each in features)
        assert optimized.bbox_head(features)[0][0].dtype == torch.float32
    assert 1e-5 < relative(dict(enumerate(features)), dict(enumerate(expected))) < .05


# In runners and inferencers


@DATASETS.register_module()
class FourImages(BaseDataset):
    def load_data_list(self):
        return [dict(img_id=i) for i in range(4)]

    def prepare_data(self, index):
        image = torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(index))
        return dict(inputs=image, data_samples=DetDataSample(metainfo=dict(
            img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1, 1), img_id=index)))


@METRICS.register_module()
class BestScore(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += [sample['pred_instances']['scores'].max().item() for sample in data_samples]

    def compute_metrics(self, results):
        return dict(score=sum(results))


def run_test(model, tmp_path, hooks=(), **default_hooks):
    loader = dict(dataset=dict(type='FourImages'), batch_size=2, num_workers=0,
                  collate_fn=dict(type='pseudo_collate'), sampler=dict(type='DefaultSampler', shuffle=False))
    runner = Runner(model, str(tmp_path), test_dataloader=loader, test_cfg=dict(), default_scope='mmdet',
                    test_evaluator=dict(type='BestScore'), log_level='ERROR', custom_hooks=list(hooks),
                    default_hooks=dict(default_hooks, checkpoint=None))
    return runner, runner.test()['score']


class Watch(OptimizeForInferenceHook):
    """Keeps what the test runs."""

    def before_test_epoch(self, runner):
        super().before_test_epoch(runner)
        self.step = runner.model.test_step


def test_hook_runs_the_test_with_the_optimised_model(panoptic, tmp_path):
    _, expected = run_test(panoptic, tmp_path / 'plain')
    watch = Watch()
    runner, score = run_test(panoptic, tmp_path / 'optimized', [watch])
    assert norms(watch.step.optimized) == 0 and runner.model is panoptic and 'test_step' not in vars(panoptic)
    assert score == pytest.approx(expected, abs=1e-4)
    # As --cfg-options can say it.
    _, low = run_test(panoptic, tmp_path / 'low', optimize=dict(type='knet_plugin.OptimizeForInferenceHook',
                                                                dtype='bfloat16'))
    assert low != score and low == pytest.approx(expected, abs=.05)


def test_hook_comes_after_averaged_weights(panoptic, tmp_path):
    """mmengine exchanges weights and averages by the same event."""
    model = copy.deepcopy(panoptic)
    watch = Watch()
    loader = dict(dataset=dict(type='FourImages'), batch_size=2, num_workers=0,
                  collate_fn=dict(type='pseudo_collate'), sampler=dict(type='DefaultSampler', shuffle=False))
    runner = Runner(model, str(tmp_path), test_dataloader=loader, test_cfg=dict(), default_scope='mmdet',
                    test_evaluator=dict(type='BestScore'), log_level='ERROR', default_hooks=dict(checkpoint=None),
                    custom_hooks=[watch, dict(type='EMAHook')])
    ema = next(hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook')
    runner.call_hook('before_run')
    with torch.no_grad():
        ema.ema_model.module.panoptic_head.kernel_head.init_kernels.weight.zero_()
    runner.call_hook('before_test_epoch')
    with torch.no_grad():
        model.eval().test_step(one_image())
    assert not watch.step.optimized.panoptic_head.kernel_head.init_kernels.weight.any()
    runner.call_hook('after_test_epoch', metrics={})
    assert model.panoptic_head.kernel_head.init_kernels.weight.any()


def test_hook_finds_the_model_in_wrappers(panoptic, monkeypatch):
    # Without the processes of a distributed run: what matters is how the hook finds the model inside.
    monkeypatch.setattr(MMDistributedDataParallel, '__init__', nn.Module.__init__)
    distributed = MMDistributedDataParallel()
    distributed.module = panoptic
    augmented = type('Augmented', (BaseTTAModel, ), dict(merge_preds=None))(panoptic)
    for wrapper in (distributed, augmented):
        runner = type('AnyRunner', (), dict(model=wrapper))()
        hook = OptimizeForInferenceHook()
        hook.before_test_epoch(runner)
        assert runner.model is wrapper and wrapper.module is panoptic and 'test_step' in vars(panoptic)
        hook.after_test_epoch(runner, {})
        assert 'test_step' not in vars(panoptic)
    with pytest.raises(TypeError, match='none that is wrapped in another module, got MMDistributedDataParallel'):
        optimize(distributed)
    distributed._modules['sharded'] = distributed._modules.pop('module')
    with pytest.raises(TypeError, match='cannot optimise the model inside a MMDistributedDataParallel'):
        OptimizeForInferenceHook().before_test_epoch(type('AnyRunner', (), dict(model=distributed))())


def test_hook_refuses_unknown_types():
    with pytest.raises(ValueError, match="dtype must be one of float32, bfloat16, float16, got dtype='int8'"):
        OptimizeForInferenceHook('int8')


def assert_alike(result, expected):
    """Instances of the same scores and labels, but for some whose scores are equal but for rounding."""
    assert result['scores'] == pytest.approx(expected['scores'], abs=1e-4)
    assert np.mean(np.equal(result['labels'], expected['labels'])) > .9


def test_in_mmdet_s_inferencer():
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    torch.manual_seed(0)
    inferencer = DetInferencer(panoptic_config(), device='cpu', show_progress=False)
    plain = spread(inferencer.model)
    expected = inferencer(image)['predictions'][0]
    inferencer.model = optimize(plain)
    result = inferencer(image)['predictions'][0]
    assert norms(inferencer.model) == 0 < norms(plain)
    assert_alike(result, expected)


def test_in_mmseg_s_inferencer():
    image = np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)
    torch.manual_seed(0)
    inferencer = MMSegInferencer(semantic_config(), device='cpu')
    plain = spread(inferencer.model)
    expected = inferencer(image)['predictions']
    inferencer.model = optimize(plain)
    result = inferencer(image)['predictions']
    assert norms(inferencer.model) < norms(plain)
    assert (result == expected).mean() > .99 and len(np.unique(expected)) > 1


# By the config alone


def optimized_by_config(cfg, **options):
    cfg = copy.deepcopy(cfg)
    cfg.model.update(type='knet_plugin.OptimizedForInference', optimized_type=cfg.model.type, **options)
    return cfg


def built_by_config(**options):
    return built(optimized_by_config(panoptic_config(), **options), MMDET_MODELS, 'mmdet')


def one_image():
    image = torch.randint(0, 255, (3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return dict(inputs=[image], data_samples=[DetDataSample(metainfo=dict(
        img_shape=(64, 96), ori_shape=(64, 96), scale_factor=(1, 1), img_id=0))])


@pytest.mark.parametrize('task', ['panoptic', 'semantic'])
def test_config_in_inferencers(task, monkeypatch):
    cfg, kind = (panoptic_config(), DetInferencer) if task == 'panoptic' else (semantic_config(), MMSegInferencer)
    quiet = dict(show_progress=False) if task == 'panoptic' else {}
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    predictions, records = [], logged(monkeypatch)
    for each in (cfg, optimized_by_config(cfg)):
        torch.manual_seed(0)
        inferencer = kind(each, device='cpu', **quiet)
        spread(inferencer.model)
        predictions.append(inferencer(image)['predictions'])
        inferencer(image)
    made = [record for record in records if 'optimised for inference' in record.getMessage()]
    assert len(made) == 1 and norms(inferencer.model) > norms(inferencer.model.test_step.optimized)
    expected, actual = predictions
    if task == 'panoptic':
        assert_alike(actual[0], expected[0])
    else:
        assert (actual == expected).mean() > .99 and len(np.unique(expected)) > 1


def test_config_in_the_functions_of_the_hosts():
    cfg = optimized_by_config(panoptic_config(), dtype='bfloat16')
    model = spread(init_detector(cfg, device='cpu'))
    inference_detector(model, np.zeros((64, 96, 3), np.uint8))
    assert norms(model.test_step.optimized) == 0


def test_config_follows_the_weights():
    model = built_by_config()
    assert type(model).__name__ == 'KNet'
    with torch.no_grad():
        model.test_step(one_image())
        first = model.test_step.optimized
        model.test_step(one_image())
        assert model.test_step.optimized is first
        state = model.state_dict()
        model.load_state_dict({name: value + 1 if name.endswith('fc_cls.bias') else value
                               for name, value in state.items()})
        model.test_step(one_image())
    second = model.test_step.optimized
    assert second is not first and torch.equal(second.panoptic_head.kernel_update_head[-1].classifier.fc_cls.bias,
                                               model.panoptic_head.kernel_update_head[-1].classifier.fc_cls.bias)
    assert model.state_dict().keys() == built(panoptic_config(), MMDET_MODELS, 'mmdet').state_dict().keys()
    model.train()  # as ever
    model.test_step(one_image())
    assert model.test_step.optimized is second


def test_config_does_not_see_writes_behind_autograd():
    """What its docstring says, and what it says to do about it."""
    model = built_by_config()
    with torch.no_grad():
        before = model.test_step(one_image())[0].pred_instances.scores
        for parameter in model.parameters():
            parameter.data.zero_()
        assert torch.equal(model.test_step(one_image())[0].pred_instances.scores, before)
        model.test_step.optimized = None
        assert not torch.equal(model.test_step(one_image())[0].pred_instances.scores, before)


@pytest.mark.parametrize('by_config', [True, False])
def test_within_inference_mode(by_config):
    with torch.no_grad():
        expected = built(panoptic_config(), MMDET_MODELS, 'mmdet').test_step(one_image())[0].pred_instances
    with torch.inference_mode():
        model = built_by_config() if by_config else optimize(built(panoptic_config(), MMDET_MODELS, 'mmdet'))
        actual = model.test_step(one_image())[0].pred_instances
    torch.testing.assert_close(actual.scores, expected.scores, rtol=1e-4, atol=1e-5)
    assert norms(model.test_step.optimized if by_config else model) == 0


def test_config_in_copies_and_with_the_function():
    model = built_by_config()
    again = copy.deepcopy(model)
    with torch.no_grad():
        again.test_step(one_image())
        assert again.test_step.optimized is not None and model.test_step.optimized is None
        optimized = optimize(model)  # as the hook does
        optimized.test_step(one_image())
    assert norms(optimized) == 0 and 'test_step' not in vars(optimized) and 'test_step' in vars(model)


def test_hook_leaves_the_step_of_a_config():
    model = built_by_config()
    step = model.test_step
    hook, runner = OptimizeForInferenceHook(), type('AnyRunner', (), dict(model=model))()
    hook.before_test_epoch(runner)
    assert model.test_step is not step
    hook.before_test_epoch(runner)  # after a test that has failed
    hook.after_test_epoch(runner)
    assert model.test_step is step


def test_autocast_of_the_caller_does_not_count(panoptic, monkeypatch):
    """mmengine's loops in 16 bits are around all steps."""
    records = logged(monkeypatch)
    with torch.autocast('cpu', torch.bfloat16):
        optimize(panoptic)
    assert [record.levelno for record in records] == [logging.INFO]


def test_what_cannot_take_any_image_is_measured_on_the_first(monkeypatch):
    """A model of grey images, and one that goes over an image in crops of the size that it was made for."""
    grey, crops = semantic_config(), semantic_config()
    grey.model.data_preprocessor.update(mean=[128.], std=[50.], bgr_to_rgb=False, rgb_to_bgr=False)
    grey.model.backbone.in_channels = 1
    crops.model.test_cfg = dict(mode='slide', crop_size=(32, 48), stride=(32, 48))
    for cfg, channels, size in (grey, 1, (64, 96)), (crops, 3, (32, 48)):
        model = built(optimized_by_config(cfg), MMSEG_MODELS, 'mmseg')
        image = torch.randint(0, 255, (channels, 64, 96), dtype=torch.uint8)
        sample = SegDataSample(metainfo=dict(img_shape=(64, 96), ori_shape=(64, 96)))
        records = logged(monkeypatch)
        with torch.no_grad():
            result = model.test_step(dict(inputs=[image], data_samples=[sample]))[0].seg_logits.data
            expected = type(model).test_step(model, dict(inputs=[image], data_samples=[sample]))[0].seg_logits.data
        assert f'shape (1, {channels}, {size[0]}, {size[1]})' in ''.join(record.getMessage() for record in records)
        torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-4)


def test_config_refuses_wrong_options():
    with pytest.raises(ValueError, match="dtype must be one of float32, bfloat16, float16, got dtype='int8'"):
        built_by_config(dtype='int8')
    with pytest.raises(TypeError, match="compile must be .*, got compile='inductor'"):
        built_by_config(compile='inductor')


@pytest.mark.parametrize('options', [
    ['default_hooks.optimize.type=knet_plugin.OptimizeForInferenceHook', 'default_hooks.optimize.dtype=bfloat16'],
    ['model.type=knet_plugin.OptimizedForInference', 'model.optimized_type=KNet', 'model.dtype=bfloat16'],
], ids=['hook', 'config'])
def test_on_the_command_line(options, tmp_path):
    """The whole way of ``mim test``: a config file, a checkpoint, a data set and its metrics."""
    cfg = small_config('instance', small_data(tmp_path / 'data', num_train=1, num_val=2), 1)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MMDET_MODELS.build(copy.deepcopy(cfg.model))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'weights.pth')
    done = run(cfg, tmp_path / 'test', str(tmp_path / 'weights.pth'), '--cfg-options', *options, command='test')
    output = done.stdout + done.stderr
    assert re.search(r'KNet optimised for inference \(dtype=torch.bfloat16, .* mask_logits ', output), output[-3000:]
    assert 'coco/segm_mAP' in output
