import copy
import io
import pickle

import pytest
import torch
from golden import Golden, assert_close, build, cases, decode_head_config
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.runner.checkpoint import load_state_dict
from mmseg.models.decode_heads import FCNHead
from mmseg.registry import MODELS as MMSEG_MODELS
from segmentation_cases import check_segmentation, labelled, segmentation_samples, segmentor_config
from torch.utils.checkpoint import checkpoint

from knet_plugin.checkpoint import from_official, to_official
from knet_plugin.compat import release
from knet_plugin.semantic import ADAPTERS, Refused, Adapter

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
HEADS = PLAIN | POST_PROCESSING


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


def knet(name, stages=3, update=None, **changes):
    torch.manual_seed(0)
    return build(dict(type='knet_plugin.IterativeDecodeHead', num_stages=stages, kernel_update_head=update,
                      kernel_generate_head=dict(type=f'mmseg.{name}', _scope_='mmseg', **{**HEADS[name], **changes})))


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
        plain = copy.deepcopy(head.kernel_generate_head)
        del plain.cls_seg
        assert_close({'logits': plain(levels)}, {'logits': golden['out/eval/gen_logits']}, 1e-4)

    head.train()
    losses = head.loss(levels, labels, None)
    total = sum(value for key, value in losses.items() if 'loss' in key)
    total.backward()
    check_losses(losses, golden, total, pixels=golden['in/gt_semantic_seg'].numel())
    assert_close({f'feat{key}': levels[int(key)].grad for key in inputs}, golden.group('out/grad_in/'), 1e-4)
    check_gradients(head, golden)


def check_gradients(model, golden):
    """Norms of all gradients; the whole array where the golden has it."""
    gradients = to_official({key: parameter.grad for key, parameter in model.named_parameters()}, model)
    norms = {key: torch.tensor(value) for key, value in golden.info['grad_l2_norm_per_param'].items()}
    assert_close({key: value.norm() for key, value in gradients.items()}, norms, 1e-4)
    arrays = golden.group('out/grad_param/')
    if arrays:
        assert_close({key: gradients[key] for key in arrays}, arrays, 1e-4)


def check_losses(losses, golden, total, pixels):
    expected = golden.group('out/loss/')
    for key, value in expected.items():
        if 'acc_seg' in key:  # in percent; ties in the argmax may move a few pixels
            assert abs(losses[key].item() - value.item()) <= 5 * 100 / pixels, key
    assert_close({key: value for key, value in losses.items() if 'loss' in key},
                 {key: value for key, value in expected.items() if 'loss' in key}, 1e-4)
    assert losses.keys() == expected.keys()
    assert_close({'total': total}, {'total': golden['out/total']}, 1e-4)


@pytest.mark.parametrize('name', cases('seg_encoder_decoder_*'))
def test_golden_segmentor(name):
    golden = Golden(name)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MMSEG_MODELS.build(ConfigDict(segmentor_config(golden.config)))
    model.load_state_dict(golden.state)
    check_segmentation(model.eval(), golden)

    model.train()
    losses = model(golden['in/img'], segmentation_samples(golden), mode='loss')
    total = sum(value for key, value in losses.items() if 'loss' in key)
    total.backward()
    check_losses(losses, golden, total, pixels=golden['in/gt_semantic_seg'].numel())
    check_gradients(model, golden)


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
        sum(value for key, value in losses.items() if 'loss' in key).backward()
        logits = head.eval()(levels)
        gradients = {f'{i}': level.grad for i, level in enumerate(levels) if level.grad is not None}
        results.append((losses, gradients, logits))
    (their_losses, their_gradients, their_logits), (losses, gradients, logits) = results
    assert_close(losses, their_losses, 1e-5)
    assert_close(gradients, their_gradients, 1e-4)
    assert_close({'logits': logits}, {'logits': their_logits}, 1e-5)
    assert to_official(ours.state_dict(), ours).keys() == theirs.state_dict().keys()


@pytest.mark.parametrize('name', HEADS)
def test_stage_zero_is_the_plain_head(name):
    """M_0 and its loss are the stock head's, whatever that does between feature and classifier."""
    head = perturb(knet(name)).train()
    plain = perturb(knet(name, stages=0)).train().kernel_generate_head
    plain.load_state_dict(head.kernel_generate_head.state_dict())
    del plain.cls_seg, plain.loss_by_feat
    losses = head.loss(features(), samples(), None)
    expected = plain.loss(features(), samples(), None)
    assert sorted(losses) == sorted(f'{key}.s{i}' for key in ('loss_ce', 'acc_seg') for i in range(4))
    torch.testing.assert_close(losses['loss_ce.s0'], expected['loss_ce'], rtol=1e-6, atol=0)


@pytest.mark.parametrize('name', HEADS)
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
    assert prediction.shape == logits.shape
    assert not torch.allclose(prediction, logits)


@pytest.mark.parametrize('name', HEADS)
def test_gradients_reach_everything(name):
    head = perturb(knet(name)).train()
    levels = [level.requires_grad_() for level in features()]
    losses = head.loss(levels, samples(), None)
    sum(value for key, value in losses.items() if 'loss' in key).backward()
    missing = [key for key, parameter in head.named_parameters()
               if parameter.grad is None or not parameter.grad.isfinite().all()]
    assert not missing
    assert levels[3].grad.any()


def test_zero_stages_is_the_plain_head():
    head = knet('FCNHead', stages=0).eval()
    plain = copy.deepcopy(head.kernel_generate_head)
    del plain.cls_seg, plain.loss_by_feat
    torch.testing.assert_close(head(features()), plain(features()), rtol=0, atol=0)
    assert sorted(head.loss(features(), samples(), None)) == ['acc_seg.s0', 'loss_ce.s0']


def test_copies_are_independent():
    """deepcopy (EMA) and pickle keep the copy's stock head tied to the copy."""
    head = perturb(knet('FCNHead')).eval()
    expected = head(features())
    for clone in (copy.deepcopy(head), pickle.loads(pickle.dumps(head)), _saved_and_loaded(head)):
        torch.testing.assert_close(clone(features()), expected)
        with torch.no_grad():
            clone.kernel_update_head[2].fc_mask.weight.zero_()
        assert not torch.allclose(clone(features()), expected)
        torch.testing.assert_close(head(features()), expected)


def _saved_and_loaded(head):
    buffer = io.BytesIO()
    torch.save(head, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def test_training_leaves_nothing_behind():
    head = knet('FCNHead').train()
    head.loss(features(), samples(), None)
    copy.deepcopy(head)
    with pytest.raises(ValueError, match='Expected input batch_size'):  # nor does a failure: labels for three images
        head.loss(features(), samples(3), None)
    copy.deepcopy(head)
    assert head._stage_logits == []


def test_stage_logits():
    head = knet('FCNHead', stages=2).eval()
    logits = head.stage_logits(features())
    assert [tuple(stage.shape) for stage in logits] == [(2, CLASSES, 2, 2)] * 3
    torch.testing.assert_close(logits[-1], head(features()))
    assert not torch.allclose(logits[0], logits[1])


def test_other_ignore_index():
    head = knet('FCNHead', ignore_index=3).train()
    labels = torch.full((2, 1, 64, 64), 3)
    assert head.loss(features(), samples(labels=labels), None)['loss_ce.s3'] == 0
    with pytest.raises(ValueError, match='ignore_index=3'):
        head.loss(features(), samples(labels=torch.full((2, 1, 64, 64), 255)), None)


def test_init_cfg_of_stages():
    head = knet('FCNHead', update=dict(init_cfg=dict(type='Constant', val=0.5, layer='Linear')))
    head.init_weights()
    assert all((stage.fc_mask.weight == 0.5).all() for stage in head.kernel_update_head)


def test_gradients_under_float16_autocast():
    head = perturb(knet('FCNHead')).train()
    with torch.autocast('cpu', dtype=torch.float16):
        losses = head.loss([10 * level for level in features()], samples(), None)
    sum(value for key, value in losses.items() if 'loss' in key).backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.kernel_update_head.parameters())


@pytest.mark.parametrize('reentrant', [True, False])
def test_activation_checkpointing(reentrant):
    """The reentrant kind would lose the gradients of all stages but the last without a word."""
    head = perturb(knet('FCNHead')).train()
    stock = head.kernel_generate_head
    plain_forward = type(stock).forward
    stock.forward = lambda inputs: checkpoint(lambda *levels: plain_forward(stock, levels), *inputs,
                                              use_reentrant=reentrant)
    levels = [level.requires_grad_() for level in features()]
    if reentrant:
        with pytest.raises(RuntimeError, match='use_reentrant=False'):
            head.loss(levels, samples(), None)
        return
    losses = head.loss(levels, samples(), None)
    del stock.forward
    expected = head.loss(levels, samples(), None)
    torch.testing.assert_close(losses['loss_ce.s1'], expected['loss_ce.s1'])
    losses['loss_ce.s1'].backward()
    assert levels[3].grad.any()


def test_stages_train_on_a_frozen_stock_head():
    head = perturb(knet('FCNHead')).train()
    head.kernel_generate_head.requires_grad_(False)
    losses = head.loss(features(), samples(), None)
    sum(value for key, value in losses.items() if 'loss' in key).backward()
    assert all(parameter.grad is not None for parameter in head.kernel_update_head.parameters())
    assert all(parameter.grad is None for parameter in head.kernel_generate_head.parameters())


# Heads that train on more than M; PID and DDR want one more feature map or boundaries, see test_decode_heads.py.
SEVERAL = dict(DAHead=dict(**ONE_LEVEL, pam_channels=4),
               EncHead=dict(COMMON, in_channels=list(WIDTHS), in_index=[0, 1, 2, 3], channels=16, num_codes=4))


@pytest.mark.parametrize('name', SEVERAL)
def test_other_outputs_keep_their_losses(name):
    head = perturb(build(dict(type='knet_plugin.IterativeDecodeHead', kernel_generate_head=dict(
        type=f'mmseg.{name}', _scope_='mmseg', **SEVERAL[name])))).train()
    plain = copy.deepcopy(head.kernel_generate_head)
    del plain.cls_seg, plain.loss_by_feat
    losses, expected = head.loss(features(), samples(), None), plain.loss(features(), samples(), None)
    main = {'DAHead': 'pam_cam.', 'EncHead': ''}[name]
    stages = {f'{main}{key}.s{i}' for key in ('loss_ce', 'acc_seg') for i in range(4)}
    assert stages <= losses.keys()
    others = losses.keys() - stages
    assert others == expected.keys() - {f'{main}loss_ce', f'{main}acc_seg'} and others
    for key in others:
        torch.testing.assert_close(losses[key], expected[key])
    torch.testing.assert_close(losses[f'{main}loss_ce.s0'], expected[f'{main}loss_ce'])


class TwoOutputs(FCNHead):
    """A third party's head with an auxiliary map."""

    def forward(self, inputs):
        feats = self._forward_feature(inputs)
        return dict(main=[self.cls_seg(feats)], other=feats.mean())

    def loss_by_feat(self, seg_logits, batch_data_samples):
        losses = super().loss_by_feat(seg_logits['main'][0], batch_data_samples)
        return dict(losses, loss_other=seg_logits['other'].square())


def test_a_third_partys_head_is_registered_in_one_line(monkeypatch):
    head = build(dict(type='knet_plugin.IterativeDecodeHead', kernel_generate_head=dict(
        type=TwoOutputs, _scope_='mmseg', **HEADS['FCNHead']))).train()
    with pytest.raises(TypeError, match=r'TwoOutputs trains on a dict, .*ADAPTERS\[TwoOutputs\] = Adapter\(once='):
        head.loss(features(), samples(), None)
    monkeypatch.setitem(ADAPTERS, TwoOutputs, Adapter(once=('loss_other', )))
    head = build(dict(type='knet_plugin.IterativeDecodeHead', kernel_generate_head=dict(
        type=TwoOutputs, _scope_='mmseg', **HEADS['FCNHead']))).train()
    losses = head.loss(features(), samples(), None)
    assert {'loss_other', 'loss_ce.s0', 'loss_ce.s3'} <= losses.keys() and 'loss_other.s0' not in losses
    monkeypatch.setitem(ADAPTERS, TwoOutputs, Adapter(once=('loss_othr', )))
    assert 'loss_other' in head.loss(features(), samples(), None)  # what is built keeps its adapter
    head = build(dict(type='knet_plugin.IterativeDecodeHead', kernel_generate_head=dict(
        type=TwoOutputs, _scope_='mmseg', **HEADS['FCNHead']))).train()
    with pytest.raises(ValueError, match=r"once=\['loss_othr'\], but its losses are"):
        head.loss(features(), samples(), None)
    monkeypatch.setitem(ADAPTERS, TwoOutputs, Refused('not today'))
    with pytest.raises(TypeError, match='K-Net does not go on TwoOutputs: not today'):
        build(dict(type='knet_plugin.IterativeDecodeHead', kernel_generate_head=dict(
            type=TwoOutputs, _scope_='mmseg', **HEADS['FCNHead'])))
    with pytest.raises(TypeError, match="once='loss_other'"):
        Adapter(once='loss_other')


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


class ByPositionSeam(Adapter):
    def channels(self, head):
        return head.channels

    def enter(self, head, refine):
        self._head, self._refine = head, refine
        head.masks = self._masks

    def _masks(self, rows, size):
        kernels = self._head.queries[None, ..., None, None].expand(len(rows), -1, -1, -1, -1)
        return self._refine(rows.unflatten(2, size), kernels, type(self._head).masks(self._head, rows, size))


def test_a_third_partys_way_of_making_masks(monkeypatch):
    """Nothing but the adapter knows of it; copies have their own."""
    monkeypatch.setitem(ADAPTERS, ByPosition, ByPositionSeam())
    head = perturb(build(dict(type='knet_plugin.IterativeDecodeHead', kernel_generate_head=dict(
        type=ByPosition, _scope_='mmseg', **HEADS['FCNHead'])))).train()
    losses = head.loss(features(), samples(), None)
    assert losses.keys() == {f'{key}.s{i}' for key in ('loss_ce', 'acc_seg') for i in range(4)}
    sum(losses[f'loss_ce.s{i}'] for i in range(4)).backward()
    assert head.kernel_generate_head.queries.grad.any()
    plain = copy.deepcopy(head.eval().kernel_generate_head)
    del plain.masks
    torch.testing.assert_close(head.stage_logits(features())[0], plain(features()))
    clone = copy.deepcopy(head)
    with torch.no_grad():
        clone.kernel_generate_head.queries.zero_()
    assert not clone.stage_logits(features())[0].any() and head.stage_logits(features())[0].any()


def test_copies_refuse_too():
    head = build(dict(type='knet_plugin.IterativeDecodeHead', kernel_generate_head=dict(
        type=TwoOutputs, _scope_='mmseg', **HEADS['FCNHead']))).train()
    for clone in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        with pytest.raises(TypeError, match='TwoOutputs trains on a dict'):
            clone.loss(features(), samples(), None)


class TwoMaps(FCNHead):
    """Classifies twice."""

    def forward(self, inputs):
        feats = self._forward_feature(inputs)
        return self.cls_seg(feats.flip(-1)), self.cls_seg(feats)


def test_a_classifier_that_is_called_twice(monkeypatch):
    monkeypatch.setitem(ADAPTERS, TwoMaps, Adapter())
    head = build(dict(type='knet_plugin.IterativeDecodeHead', kernel_generate_head=dict(
        type=TwoMaps, _scope_='mmseg', **HEADS['FCNHead']))).train()
    with pytest.raises(TypeError, match='TwoMaps calls its classifier 2 times'):
        head.loss(features(), samples(), None)


def segmenter():
    torch.manual_seed(0)
    return perturb(build(dict(type='knet_plugin.IterativeDecodeHead', num_stages=2, kernel_generate_head=dict(
        type='mmseg.SegmenterMaskTransformerHead', _scope_='mmseg', in_channels=20, in_index=3, channels=16,
        embed_dims=16, num_layers=1, num_heads=2, num_classes=CLASSES, dropout_ratio=0.))))


def test_copies_of_a_head_whose_forward_is_replaced():
    head = segmenter().eval()
    expected = head(features())
    for clone in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        torch.testing.assert_close(clone(features()), expected)
        with torch.no_grad():
            clone.kernel_update_head[1].fc_mask.weight.zero_()
        assert not torch.allclose(clone(features()), expected)
        torch.testing.assert_close(head(features()), expected)
    head.kernel_generate_head.patch_proj(torch.rand(1, 4, 16))
    copy.deepcopy(head)  # nothing was kept
    head.kernel_generate_head.patch_proj = torch.nn.Linear(16, 16, bias=False)
    with pytest.raises(RuntimeError, match='did not call its patch_proj and classes_proj, or they were replaced'):
        head(features())


@pytest.mark.parametrize('keys', ['backbone.conv.weight', 'auxiliary_head.conv_seg.weight'])
def test_files_without_this_head_are_left_to_the_caller(keys):
    model = torch.nn.ModuleDict(dict(decode_head=knet('FCNHead')))
    missing, unexpected = model.load_state_dict({keys: torch.zeros(1)}, strict=False)
    assert unexpected == [keys] and set(missing) >= dict(model.named_parameters()).keys()


class BypassingHead(FCNHead):
    """Classifies on its own."""

    def forward(self, inputs):
        return self.conv_seg(self._forward_feature(inputs))


def test_head_that_bypasses_the_seam():
    head = build(dict(type='knet_plugin.IterativeDecodeHead', kernel_generate_head=dict(
        type=BypassingHead, _scope_='mmseg', **HEADS['FCNHead']))).eval()
    for call in (head, head.stage_logits, lambda levels: head.predict(levels, [dict(img_shape=(8, 8))], None)):
        with pytest.raises(TypeError, match='BypassingHead classifies without calling its cls_seg'):
            call(features())
    with pytest.raises(TypeError, match='BypassingHead classifies without calling its cls_seg'):
        head.train().loss(features(), samples(), None)


def test_classifier_that_is_not_linear():
    head = knet('FCNHead')
    head.kernel_generate_head.conv_seg = torch.nn.Conv2d(16, CLASSES, 3, padding=1)
    with pytest.raises(TypeError, match='FCNHead has no linear classifier'):
        head(features())


@pytest.mark.parametrize('loader', ['torch', 'mmengine'])
def test_official_weights_are_renamed_while_loading(loader):
    head, other = perturb(knet('FCNHead')).eval(), knet('FCNHead').eval()
    model, target = torch.nn.Sequential(head), torch.nn.Sequential(other)
    official = to_official(model.state_dict(), model)
    if loader == 'torch':
        target.load_state_dict(official, strict=True)
    else:
        load_state_dict(target, official, strict=True)
    torch.testing.assert_close(other(features()), head(features()), rtol=0, atol=0)
    official['0.kernel_update_head.0.unknown.weight'] = torch.zeros(1)
    with pytest.raises(RuntimeError, match='unknown'):
        torch.nn.Sequential(knet('FCNHead')).load_state_dict(official, strict=True)


def test_data_parallel_replica_is_refused():
    head = knet('FCNHead')
    replica = head._replicate_for_data_parallel()
    with pytest.raises(RuntimeError, match='DistributedDataParallel'):
        replica(features())


@pytest.mark.skipif(release(torch.__version__) < (2, 6), reason='torch breaks its graphs at decorators of the hosts')
def test_compiles_without_a_graph_break():
    head = knet('FCNHead').eval()
    torch._dynamo.reset()
    explanation = torch._dynamo.explain(head)(features())
    assert explanation.graph_break_count == 0, explanation.break_reasons


def test_batch_of_many_is_many_batches_of_one():
    head = perturb(knet('UPerHead')).eval().double()
    levels = [level.double() for level in features(3)]
    apart = torch.cat([head([level[i:i + 1] for level in levels]) for i in range(3)])
    torch.testing.assert_close(head(levels), apart)


def test_all_pixels_ignored():
    head = knet('FCNHead').train()
    labels = torch.full((2, 1, 64, 64), 255)
    losses = head.loss(features(), samples(labels=labels), None)
    total = sum(value for key, value in losses.items() if 'loss' in key)
    assert total == 0
    total.backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters() if parameter.grad is not None)


def test_ohem_sampler():
    """Of every stage's loss only the hardest pixels are left."""
    head = knet('FCNHead', sampler=dict(type='OHEMPixelSampler', min_kept=50)).train()
    with_sampler = head.loss(features(), samples(), None)
    head.kernel_generate_head.sampler = None
    without = head.loss(features(), samples(), None)
    assert all(with_sampler[f'loss_ce.s{i}'] < without[f'loss_ce.s{i}'] for i in range(4))


def test_several_losses():
    head = knet('FCNHead', loss_decode=[dict(type='CrossEntropyLoss', loss_name='loss_ce'),
                                        dict(type='DiceLoss', loss_name='loss_dice')]).train()
    losses = head.loss(features(), samples(), None)
    assert {'loss_ce.s0', 'loss_dice.s0', 'loss_ce.s3', 'loss_dice.s3'} <= losses.keys()


def test_binary_segmentation_uses_sigmoid():
    head = knet('FCNHead', num_classes=2, out_channels=1, threshold=0.4,
                loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True)).train()
    assert type(head.kernel_update_head[0].mask_activation).__name__ == 'SigmoidMask'
    assert (head.out_channels, head.threshold) == (1, 0.4)
    with pytest.raises(ValueError, match=r'labels must be 0 \.\. 1'):
        head.loss(features(), samples(labels=torch.full((2, 1, 64, 64), 2)), None)
    losses = head.loss(features(), samples(labels=torch.randint(0, 2, (2, 1, 64, 64))), None)
    assert losses['loss_ce.s3'].isfinite()


def test_batch_of_one_trains_where_the_head_can():
    losses = knet('FCNHead').train().loss(features(1), samples(1), None)
    assert losses['loss_ce.s3'].isfinite()


def test_batch_of_one_with_pooled_batch_norm():
    with pytest.raises(ValueError, match='PSPHead.*batch_size'):
        knet('PSPHead').train().loss(features(1), samples(1), None)


def test_image_smaller_than_the_stride():
    head = knet('FCNHead').eval()
    metas = [dict(img_shape=(3, 5), pad_shape=(3, 5))]
    assert head.predict(features(1, size=1), metas, None).shape == (1, CLASSES, 3, 5)


def test_labels_beyond_num_classes():
    labels = torch.zeros(2, 1, 64, 64, dtype=torch.long)
    labels[1, 0, 0, :2] = torch.tensor([CLASSES, 254])
    with pytest.raises(ValueError, match=r'num_classes=7.*\[7, 254\] in 1.png'):
        knet('FCNHead').train().loss(features(), samples(labels=labels), None)


def test_label_map_of_another_size_than_its_image():
    """A batch of one would be trained on logits that are stretched to fit."""
    batch = samples(1)
    batch[0].set_metainfo(dict(img_shape=(60, 62), padding_size=(0, 2, 0, 4)))
    knet('FCNHead').train().loss(features(1), batch, None)
    batch[0].set_metainfo(dict(img_shape=(60, 30), padding_size=(0, 2, 0, 4)))
    with pytest.raises(ValueError, match=r'size of its image, \(64, 32\) after padding, got \(64, 64\) from 0.png'):
        knet('FCNHead').train().loss(features(1), batch, None)


def test_label_maps_of_several_sizes():
    batch = [*samples(1), *samples(1, size=32)]
    with pytest.raises(ValueError, match=r'size of its image, \(64, 64\) after padding, got \(32, 32\) from 0.png'):
        knet('FCNHead').train().loss(features(), batch, None)


def test_label_map_with_colours():
    with pytest.raises(ValueError, match=r'must be \(1, height, width\), got \(64, 64, 3\) from 0.png'):
        knet('FCNHead').train().loss(features(), labelled(torch.zeros(2, 64, 64, 3, dtype=torch.long)), None)


def test_logits_that_are_not_finite():
    levels = features()
    levels[3][1, 0, 0, 0] = torch.nan
    head = knet('FCNHead', norm_cfg=dict(type='GN', num_groups=4)).train()
    with pytest.raises(FloatingPointError, match='the logits of an image without img_path are not finite'):
        head.loss(levels, samples(), None)


@pytest.mark.parametrize('scope', ['mmseg', 'mmdet', 'mmengine', 'knet_plugin', None])
def test_default_scope_does_not_matter(scope):
    """Stock parts are found without prefix, and mmseg's loss is not mistaken for mmdet's."""
    cfg = dict(type='knet_plugin.IterativeDecodeHead', kernel_generate_head=dict(type='FCNHead', **HEADS['FCNHead']))
    if scope is None:
        head = build(cfg)
    else:
        with DefaultScope.overwrite_default_scope(scope):
            head = build(cfg)
    assert type(head.loss_decode).__module__.startswith('mmseg.')


@pytest.mark.parametrize(('changes', 'error', 'message'), [
    (dict(num_stages=-1), ValueError, 'num_stages=-1'),
    (dict(num_stages=2, kernel_update_head=[{}]), ValueError, 'num_stages=2.*got 1'),
    (dict(kernel_update_head=dict(num_classes=8)), ValueError, 'num_classes=8.*num_classes=7'),
    (dict(kernel_update_head=dict(channels=32)), ValueError, 'channels=32.*channels=16'),
    (dict(kernel_update_head=dict(kernel_size=3)), ValueError, 'kernel_size=3.*kernel_size=1'),
    (dict(kernel_update_head=['stage'] * 3), TypeError, "'stage'"),
    (dict(kernel_update_head=dict(chanels=16)), TypeError, 'chanels'),
    (dict(kernel_update_head=dict(updater=dict(group_channels=32))), ValueError, 'channels=16 and group_channels=32'),
    (dict(kernel_update_head=dict(updater=dict(group_channels=5))), ValueError, 'multiple'),
    (dict(kernel_update_head=dict(classifier=dict(type='knet_plugin.KernelClassifier', num_classes=7))), ValueError,
     'classifier'),
    (dict(num_stage=3), TypeError, 'num_stage'),
    (dict(kernel_generate_head=dict(type='mmseg.FCNHead', **HEADS['FCNHead'], num_conv=1)), TypeError, 'num_conv'),
    (dict(kernel_generate_head=dict(type='mmseg.PointHead', in_channels=[8], in_index=[0], channels=8, num_classes=7)),
     TypeError, 'K-Net does not go on PointHead: it sees sampled points only'),
    (dict(kernel_generate_head=dict(type='SideAdapterCLIPHead')), TypeError, 'SideAdapterCLIPHead: its vocabulary is'),
    (dict(kernel_generate_head=dict(type='mmseg.Mask2FormerHead')), TypeError, 'Mask2FormerHead: its masks are of'),
    (dict(kernel_generate_head=dict(type='VPDDepthHead')), TypeError, 'VPDDepthHead: it estimates depth'),
    (dict(kernel_generate_head=dict(type='mmseg.FPN', in_channels=[8], out_channels=8, num_outs=1)), TypeError, 'FPN'),
])
def test_bad_arguments(changes, error, message):
    cfg = dict(type='knet_plugin.IterativeDecodeHead',
               kernel_generate_head=dict(type='mmseg.FCNHead', **HEADS['FCNHead']))
    with DefaultScope.overwrite_default_scope('mmseg'), pytest.raises(error, match=message):
        build(cfg | changes)


def test_a_given_config_is_left_alone():
    cfg = dict(type='knet_plugin.IterativeDecodeHead', kernel_update_head=dict(num_classes=CLASSES),
               kernel_generate_head=dict(type='mmseg.FCNHead', **HEADS['FCNHead']))
    before = copy.deepcopy(cfg)
    build(cfg)
    build(cfg)
    assert cfg == before
