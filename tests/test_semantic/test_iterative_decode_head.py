import copy
import io
import pickle
from functools import partial

import pytest
import torch
from golden import Golden, assert_close, assert_gradients_close, build, cases, decode_head_config
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.runner.checkpoint import load_state_dict
from mmseg.models.decode_heads import DAHead, FCNHead
from mmseg.registry import MODELS as MMSEG_MODELS
from segmentation_cases import check_segmentation, labelled, segmentation_samples, segmentor_config

from knet_plugin.checkpoint import from_official, to_official
from knet_plugin.semantic import ADAPTERS, Adapter, Refused

CLASSES = 7
WIDTHS = (8, 12, 16, 20)  # of the four feature levels

NORM = dict(type='BN', requires_grad=True)
COMMON = dict(num_classes=CLASSES, norm_cfg=NORM, dropout_ratio=0.0)
ONE_LEVEL = dict(in_channels=20, in_index=3, channels=16, **COMMON)
# Small versions of the nine heads; those in PLAIN are the ones on which mmseg's own K-Net is right.
PLAIN = dict(
    FCNHead=dict(**ONE_LEVEL, num_convs=2, concat_input=True),
    PSPHead=dict(**ONE_LEVEL, pool_scales=(1, 2, 3)),
    ASPPHead=dict(**ONE_LEVEL, dilations=(1, 2, 3)),
    UPerHead=dict(COMMON, in_channels=list(WIDTHS), in_index=[0, 1, 2, 3], channels=16, pool_scales=(1, 2, 3)),
)
POST_PROCESSING = dict(
    DepthwiseSeparableASPPHead=dict(**ONE_LEVEL, dilations=(1, 2, 3), c1_in_channels=8, c1_channels=4),
    NLHead=dict(**ONE_LEVEL, reduction=2, use_scale=True, mode='embedded_gaussian'),
    DNLHead=dict(**ONE_LEVEL, reduction=2, use_scale=True, mode='embedded_gaussian'),
    GCHead=dict(**ONE_LEVEL, ratio=1 / 4., pooling_type='att', fusion_types=('channel_add', )),
    CCHead=dict(**ONE_LEVEL, recurrence=2),
)
# Heads that train on more than M; PIDNet and DDRNet are in test_decode_heads.py.
SEVERAL = dict(
    DAHead=dict(**ONE_LEVEL, pam_channels=4),
    EncHead=dict(COMMON, in_channels=list(WIDTHS), in_index=[0, 1, 2, 3], channels=16, num_codes=4),
)
HEADS = PLAIN | POST_PROCESSING | SEVERAL
ONE_MAP = list(PLAIN | POST_PROCESSING)


def features(batch=2, size=16):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, width, max(size >> i, 1), max(size >> i, 1), generator=generator)
            for i, width in enumerate(WIDTHS)]


def samples(batch=2, size=64, labels=None):
    generator = torch.Generator().manual_seed(2)
    if labels is None:
        labels = torch.randint(0, CLASSES, (batch, 1, size, size), generator=generator)
        labels[:, :, :7] = 255
    return labelled(labels, img_shape=(size, size), ori_shape=(size, size))


def knet(kind, stages=3, update=None, **changes):
    """Our head on a stock head of mmseg, or on a class of one's own with the options of an FCNHead."""
    torch.manual_seed(0)
    generator = {**HEADS.get(kind, HEADS['FCNHead']), **changes}
    generator['type'] = f'mmseg.{kind}' if isinstance(kind, str) else kind
    return build(dict(type='knet_plugin.IterativeDecodeHead', num_stages=stages, kernel_update_head=update,
                      kernel_generate_head=dict(generator, _scope_='mmseg')))


def plain_head(head):
    """A copy of the stock head without K-Net."""
    plain = copy.deepcopy(head.kernel_generate_head)
    for method in {'cls_seg', 'forward'} & vars(plain).keys():
        delattr(plain, method)
    return plain


def total(losses):
    return sum(value for key, value in losses.items() if 'loss' in key)


def perturb(module):
    """Move every weight, so that no residual or normalisation that starts as an identity can hide."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return module


@pytest.mark.parametrize('name', cases('seg_iter_head_*'))
def test_golden(name):
    golden = Golden(name)
    head = build(decode_head_config(golden.config))
    head.load_state_dict(golden.state)
    inputs = golden.group('in/feat')
    levels = [inputs[str(i)].requires_grad_() if str(i) in inputs else torch.zeros(3, 1, 1, 1) for i in range(4)]
    labels = samples(labels=golden['in/gt_semantic_seg'].long())

    head.eval()
    with torch.no_grad():
        assert_close({'logits': head(levels)}, {'logits': golden['out/eval/logits']}, 1e-4)
        assert_close({'logits': plain_head(head)(levels)}, {'logits': golden['out/eval/gen_logits']}, 1e-4)

    head.train()
    losses = head.loss(levels, labels, None)
    total(losses).backward()
    check_losses(losses, golden, pixels=golden['in/gt_semantic_seg'].numel())
    assert_close({f'feat{key}': levels[int(key)].grad for key in inputs}, golden.group('out/grad_in/'), 1e-4)
    assert_gradients_close(head, golden, 1e-4)


def check_losses(losses, golden, pixels):
    expected = golden.group('out/loss/')
    for key, value in expected.items():
        if 'acc_seg' in key:  # in percent; ties in the argmax may move a few pixels
            assert abs(losses[key].item() - value.item()) <= 5 * 100 / pixels, key
    assert_close({key: value for key, value in losses.items() if 'loss' in key},
                 {key: value for key, value in expected.items() if 'loss' in key}, 1e-4)
    assert losses.keys() == expected.keys()
    assert_close({'total': total(losses)}, {'total': golden['out/total']}, 1e-4)


@pytest.mark.parametrize('name', cases('seg_encoder_decoder_*'))
def test_golden_segmentor(name):
    golden = Golden(name)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MMSEG_MODELS.build(ConfigDict(segmentor_config(golden.config)))
    model.load_state_dict(golden.state)
    check_segmentation(model.eval(), golden)

    losses = model.train()(golden['in/img'], segmentation_samples(golden), mode='loss')
    total(losses).backward()
    check_losses(losses, golden, pixels=golden['in/gt_semantic_seg'].numel())
    assert_gradients_close(model, golden, 1e-4)


def mmseg_knet(name, stages=2):
    """mmseg's own K-Net on the same head."""
    stage = dict(type='KernelUpdateHead', num_classes=CLASSES, num_ffn_fcs=2, num_heads=4, num_mask_fcs=1,
                 feedforward_channels=32, in_channels=16, out_channels=16, dropout=0.0, conv_kernel_size=1,
                 with_ffn=True, feat_transform_cfg=dict(conv_cfg=dict(type='Conv2d'), act_cfg=None),
                 kernel_updator_cfg=dict(type='KernelUpdator', in_channels=8, feat_channels=8, out_channels=8,
                                         act_cfg=dict(type='ReLU', inplace=True), norm_cfg=dict(type='LN')))
    with DefaultScope.overwrite_default_scope('mmseg'):
        return MMSEG_MODELS.build(dict(
            type='IterativeDecodeHead', num_stages=stages,
            kernel_update_head=[copy.deepcopy(stage) for _ in range(stages)],
            kernel_generate_head=dict(type=name, **{**PLAIN[name], 'dropout_ratio': 0.3})))


@pytest.mark.parametrize('name', PLAIN)
def test_parity_with_mmseg(name):
    """Same weights, same outputs, losses and gradients as mmseg's K-Net, dropout included."""
    theirs = perturb(mmseg_knet(name))
    ours = knet(name, 2, dict(updater=dict(group_channels=8),
                              interaction=dict(num_heads=4, feedforward_channels=32)), dropout_ratio=0.3)
    ours.load_state_dict(from_official(theirs.state_dict(), ours))
    results = []
    for head in (theirs, ours):
        levels = [level.requires_grad_() for level in features()]
        torch.manual_seed(5)
        losses = head.train().loss(levels, samples(), None)
        total(losses).backward()
        logits = head.eval()(levels)
        gradients = {f'{i}': level.grad for i, level in enumerate(levels) if level.grad is not None}
        results.append((losses, gradients, logits))
    (their_losses, their_gradients, their_logits), (losses, gradients, logits) = results
    assert_close(losses, their_losses, 1e-5)
    assert_close(gradients, their_gradients, 1e-4)
    assert_close({'logits': logits}, {'logits': their_logits}, 1e-5)
    assert to_official(ours.state_dict(), ours).keys() == theirs.state_dict().keys()


@pytest.mark.parametrize('name', HEADS)
def test_losses_of_stage_zero_are_the_plain_heads(name):
    """Losses that depend on the masks are there for each stage, all others once."""
    head = perturb(knet(name)).train()
    plain = plain_head(head)
    losses, expected = head.loss(features(), samples(), None), plain.loss(features(), samples(), None)
    main = 'pam_cam.' if name == 'DAHead' else ''
    stages = {f'{main}{key}' for key in ('loss_ce', 'acc_seg')}
    assert losses.keys() == {f'{key}.s{i}' for key in stages for i in range(4)} | (expected.keys() - stages)
    for key, value in expected.items():
        torch.testing.assert_close(losses[f'{key}.s0' if key in stages else key], value)


@pytest.mark.parametrize('name, calls', [('FCNHead', 4), ('DAHead', 4 + 2), ('EncHead', 4)])
def test_every_loss_is_computed_once(name, calls, monkeypatch):
    head = knet(name).train()
    counted = []
    head.kernel_generate_head.loss_decode.register_forward_hook(lambda *_: counted.append('ce'))
    if name == 'EncHead':
        head.kernel_generate_head.loss_se_decode.register_forward_hook(lambda *_: counted.append('se'))
    head.loss(features(), samples(), None)
    assert counted.count('ce') == calls and counted.count('se') == (name == 'EncHead')


@pytest.mark.parametrize('name', ONE_MAP)
def test_stages_start_from_what_the_classifier_sees(name):
    """F and K_0 belong together: their product is M_0."""
    head = perturb(knet(name)).eval()
    seen = []
    head.kernel_update_head[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    prediction = head(features())
    (feats, kernels, logits), = seen
    bias = head.kernel_generate_head.conv_seg.bias
    expected = torch.einsum('bnc,bchw->bnhw', kernels.flatten(2), feats) + bias[:, None, None]
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    stages = head.stage_logits(features())
    assert len(stages) == 4 and torch.equal(stages[0], logits) and torch.equal(stages[3], prediction)
    assert not torch.allclose(prediction, logits)


@pytest.mark.parametrize('name', HEADS)
def test_gradients_reach_everything(name):
    head = perturb(knet(name)).train()
    levels = [level.requires_grad_() for level in features()]
    total(head.loss(levels, samples(), None)).backward()
    missing = [key for key, parameter in head.named_parameters()
               if parameter.grad is None or not parameter.grad.isfinite().all()]
    assert not missing
    assert levels[3].grad.any()


def test_zero_stages_is_the_plain_head():
    head = knet('FCNHead', stages=0).eval()
    assert torch.equal(head(features()), plain_head(head)(features()))
    assert sorted(head.loss(features(), samples(), None)) == ['acc_seg.s0', 'loss_ce.s0']


def saved_and_loaded(head):
    buffer = io.BytesIO()
    torch.save(head, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize('name', ['FCNHead', 'SegmenterMaskTransformerHead'])
@pytest.mark.parametrize('copied', [copy.deepcopy, lambda head: pickle.loads(pickle.dumps(head)), saved_and_loaded])
def test_copies_are_independent(name, copied, monkeypatch):
    """As for EMA: the copy's stock head belongs to the copy, even after a training step."""
    monkeypatch.setitem(HEADS, 'SegmenterMaskTransformerHead', dict(
        ONE_LEVEL, norm_cfg=dict(type='LN'), embed_dims=16, num_layers=1, num_heads=2))
    head = perturb(knet(name)).train()
    head.loss(features(), samples(), None)
    expected = head.eval()(features())
    clone = copied(head)
    torch.testing.assert_close(clone(features()), expected)
    with torch.no_grad():
        clone.kernel_update_head[2].fc_mask.weight.zero_()
    assert not torch.allclose(clone(features()), expected)
    torch.testing.assert_close(head(features()), expected)


def test_a_failed_step_leaves_nothing_behind():
    head = knet('FCNHead').train()
    with pytest.raises(ValueError, match='batch_size'):  # labels of three images
        head.loss(features(), samples(3), None)
    assert head._calls is None


def test_stages_train_on_a_frozen_stock_head():
    head = perturb(knet('FCNHead')).train()
    head.kernel_generate_head.requires_grad_(False)
    total(head.loss(features(), samples(), None)).backward()
    assert all(parameter.grad is not None for parameter in head.kernel_update_head.parameters())
    assert all(parameter.grad is None for parameter in head.kernel_generate_head.parameters())


class TwoOutputs(FCNHead):
    """A third party's head with an auxiliary output."""

    def forward(self, inputs):
        feats = self._forward_feature(inputs)
        return dict(main=[self.cls_seg(feats)], other=feats.mean())

    def loss_by_feat(self, seg_logits, batch_data_samples):
        losses = super().loss_by_feat(seg_logits['main'][0], batch_data_samples)
        return dict(losses, loss_other=seg_logits['other'].square())


class TwoOutputsAdapter(Adapter):
    def stage_losses(self, head, logits, outputs, samples):
        return super(TwoOutputs, head).loss_by_feat(logits, samples)

    def other_losses(self, head, outputs, samples):
        return dict(loss_other=outputs['other'].square())


def test_a_third_partys_head_with_several_outputs(monkeypatch):
    with pytest.raises(TypeError, match=r'TwoOutputs trains on a dict.*ADAPTERS\[TwoOutputs\]'):
        knet(TwoOutputs).train().loss(features(), samples(), None)
    monkeypatch.setitem(ADAPTERS, TwoOutputs, TwoOutputsAdapter())
    losses = knet(TwoOutputs).train().loss(features(), samples(), None)
    assert losses.keys() == {f'{key}.s{i}' for key in ('loss_ce', 'acc_seg') for i in range(4)} | {'loss_other'}
    monkeypatch.setitem(ADAPTERS, TwoOutputs, Refused('not today'))
    with pytest.raises(TypeError, match='TwoOutputs: not today'):
        knet(TwoOutputs)


class ByPosition(FCNHead):
    """A third party's head that classifies without a classifier: kernels of its own on rows of positions."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.queries = torch.nn.Parameter(torch.randn(self.num_classes, self.channels))

    def forward(self, inputs):
        feats = self._forward_feature(inputs)
        return self.masks(feats.flatten(2), feats.shape[2:])

    def masks(self, rows, size):
        return torch.tanh(self.queries @ rows).unflatten(2, size)


class ByPositionAdapter(Adapter):
    def channels(self, head):
        return head.channels

    def connect(self, head, refine):
        head.masks = partial(self._masks, head, refine)

    def _masks(self, head, refine, rows, size):
        kernels = head.queries[None, ..., None, None].expand(len(rows), -1, -1, -1, -1)
        return refine(rows.unflatten(2, size), kernels, type(head).masks(head, rows, size))


def test_a_third_partys_way_of_making_masks(monkeypatch):
    """Nothing but the adapter knows of it; copies have their own."""
    monkeypatch.setitem(ADAPTERS, ByPosition, ByPositionAdapter())
    head = perturb(knet(ByPosition)).train()
    losses = head.loss(features(), samples(), None)
    assert losses.keys() == {f'{key}.s{i}' for key in ('loss_ce', 'acc_seg') for i in range(4)}
    total(losses).backward()
    assert head.kernel_generate_head.queries.grad.any()
    clone = copy.deepcopy(head)
    with torch.no_grad():
        clone.kernel_generate_head.queries.zero_()
    assert not clone.stage_logits(features())[0].any() and head.stage_logits(features())[0].any()


class TwoMaps(FCNHead):
    def forward(self, inputs):
        feats = self._forward_feature(inputs)
        return self.cls_seg(feats.flip(-1)) + self.cls_seg(feats)


class Bypassing(FCNHead):
    def forward(self, inputs):
        return self.conv_seg(self._forward_feature(inputs))


class Scaling(FCNHead):
    def forward(self, inputs):
        return 2 * super().forward(inputs)


@pytest.mark.parametrize('kind, message', [
    (TwoMaps, 'TwoMaps calls cls_seg 2 times'), (Bypassing, 'Bypassing calls cls_seg 0 times'),
    (Scaling, 'Scaling returns another map')])
def test_heads_whose_stages_cannot_be_trained(kind, message):
    with pytest.raises(TypeError, match=message):
        knet(kind).train().loss(features(), samples(), None)


class OwnLoss(FCNHead):
    def loss(self, inputs, batch_data_samples, train_cfg):
        return dict(super().loss(inputs, batch_data_samples, train_cfg), loss_more=inputs[0].mean())


class OtherDAHead(DAHead):
    def loss_by_feat(self, seg_logit, batch_data_samples, **kwargs):
        return dict(super().loss_by_feat(seg_logit, batch_data_samples), loss_more=seg_logit[0].mean())


@pytest.mark.parametrize('kind, changes', [(OwnLoss, {}), (OtherDAHead, HEADS['DAHead'])])
def test_heads_whose_own_losses_would_be_lost(kind, changes):
    with pytest.raises(TypeError, match=f'{kind.__name__}: it overrides loss'):
        knet(kind, **changes)


def test_classifier_that_is_not_linear():
    head = knet('FCNHead')
    head.kernel_generate_head.conv_seg = torch.nn.Conv2d(16, CLASSES, 3, padding=1)
    with pytest.raises(TypeError, match='conv_seg of FCNHead'):
        head(features())


@pytest.mark.parametrize('load', [torch.nn.Module.load_state_dict, load_state_dict])
def test_official_weights_are_renamed_while_loading(load):
    head, other = perturb(knet('FCNHead')).eval(), knet('FCNHead').eval()
    model = torch.nn.Sequential(head)
    official = to_official(model.state_dict(), model)
    load(torch.nn.Sequential(other), official, strict=True)
    assert torch.equal(other(features()), head(features()))
    official['0.kernel_update_head.0.unknown.weight'] = torch.zeros(1)
    with pytest.raises(RuntimeError, match='unknown'):
        load(torch.nn.Sequential(knet('FCNHead')), official, strict=True)


def test_compiles_without_a_graph_break():
    torch._dynamo.reset()
    explanation = torch._dynamo.explain(knet('FCNHead').eval())(features())
    assert explanation.graph_break_count == 0, explanation.break_reasons


def test_batch_of_many_is_many_batches_of_one():
    head = perturb(knet('UPerHead')).eval().double()
    levels = [level.double() for level in features(3)]
    apart = torch.cat([head([level[i:i + 1] for level in levels]) for i in range(3)])
    torch.testing.assert_close(head(levels), apart)


@pytest.mark.parametrize('ignore_index', [255, 3])
def test_all_pixels_ignored(ignore_index):
    head = knet('FCNHead', ignore_index=ignore_index).train()
    losses = head.loss(features(), samples(labels=torch.full((2, 1, 64, 64), ignore_index)), None)
    assert total(losses) == 0
    total(losses).backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters() if parameter.grad is not None)


def test_ohem_sampler():
    """Only the hardest pixels count in every stage's loss."""
    head = knet('FCNHead', sampler=dict(type='OHEMPixelSampler', min_kept=50)).train()
    with_sampler = head.loss(features(), samples(), None)
    head.kernel_generate_head.sampler = None
    without = head.loss(features(), samples(), None)
    assert all(with_sampler[f'loss_ce.s{i}'] < without[f'loss_ce.s{i}'] for i in range(4))


def test_binary_segmentation_uses_sigmoid():
    head = knet('FCNHead', num_classes=2, out_channels=1, threshold=0.4,
                loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True)).train()
    assert type(head.kernel_update_head[0].mask_activation).__name__ == 'SigmoidMask'
    assert (head.out_channels, head.threshold) == (1, 0.4)
    with pytest.raises(ValueError, match=r'0 \.\. 1 .*\[2\]'):
        head.loss(features(), samples(labels=torch.full((2, 1, 64, 64), 2)), None)
    losses = head.loss(features(), samples(labels=torch.randint(0, 2, (2, 1, 64, 64))), None)
    assert losses['loss_ce.s3'].isfinite()


def test_batch_of_one_trains():
    assert total(knet('FCNHead').train().loss(features(1), samples(1), None)).isfinite()


def test_image_smaller_than_the_stride():
    head = knet('FCNHead').eval()
    metas = [dict(img_shape=(3, 5), pad_shape=(3, 5))]
    assert head.predict(features(1, size=1), metas, None).shape == (1, CLASSES, 3, 5)


@pytest.mark.parametrize('scope', ['mmseg', 'mmdet', 'mmengine', 'knet_plugin', None])
def test_default_scope_does_not_matter(scope):
    """Stock parts are found without prefix, and mmseg's loss is not mistaken for mmdet's."""
    cfg = dict(type='knet_plugin.IterativeDecodeHead', kernel_generate_head=dict(type='FCNHead', **HEADS['FCNHead']))
    if scope is None:
        head = build(cfg)
    else:
        with DefaultScope.overwrite_default_scope(scope):
            head = build(cfg)
    assert type(head.kernel_generate_head.loss_decode).__module__.startswith('mmseg.')


@pytest.mark.parametrize(('changes', 'error', 'message'), [
    (dict(num_stages=-1), ValueError, 'num_stages=-1'),
    (dict(num_stages=2, kernel_update_head=[{}]), ValueError, 'num_stages=2.*got 1'),
    (dict(kernel_update_head=dict(num_classes=8)), ValueError, 'num_classes=8.*num_classes=7'),
    (dict(kernel_update_head=dict(channels=32)), ValueError, 'channels=32.*channels=16'),
    (dict(kernel_update_head=dict(kernel_size=3)), ValueError, 'kernel_size=3.*kernel_size=1'),
    (dict(kernel_update_head=dict(chanels=16)), TypeError, 'chanels'),
    (dict(kernel_update_head=dict(classifier=dict(type='knet_plugin.KernelClassifier', num_classes=7))), ValueError,
     'classifier'),
    (dict(num_stage=3), TypeError, 'num_stage'),
    (dict(kernel_generate_head=dict(type='mmseg.FCNHead', **HEADS['FCNHead'], num_conv=1)), TypeError, 'num_conv'),
    (dict(kernel_generate_head=dict(type='NoSuchHead')), KeyError, 'NoSuchHead'),
    (dict(kernel_generate_head=dict(type='SideAdapterCLIPHead')), TypeError, 'SideAdapterCLIPHead: its vocabulary'),
    (dict(kernel_generate_head=dict(type='mmseg.FPN', in_channels=[8], out_channels=8, num_outs=1)), TypeError, 'FPN'),
])
def test_bad_arguments(changes, error, message):
    cfg = dict(type='knet_plugin.IterativeDecodeHead',
               kernel_generate_head=dict(type='mmseg.FCNHead', **HEADS['FCNHead']))
    before = copy.deepcopy(cfg)
    with DefaultScope.overwrite_default_scope('mmseg'), pytest.raises(error, match=message):
        build(cfg | changes)
    assert cfg == before
