import copy

import pytest
import torch
from golden import Golden, assert_close, build, cases, update_head_config

from knet_plugin.checkpoint import from_official
from knet_plugin.core import KernelUpdateHead
from knet_plugin.core.feature_map import resize
from knet_plugin.migration import MigrationError


@pytest.mark.parametrize('name', [*cases('seg_update_head_*'), *cases('det_update_head_*')])
def test_golden(name):
    golden = Golden(name)
    semantic = name.startswith('seg')
    activation, official = 'SoftmaxMask' if semantic else 'HardMask', golden.config
    if official['conv_kernel_size'] > 1 and official['kernel_updator_cfg']['in_channels'] < official['in_channels']:
        # seg_update_head_d_k3_quirk2x_noft differs on purpose: the official reshape mixes taps, see
        # test_kernel_updater.py.
        with pytest.raises(MigrationError, match='channel groups'):
            update_head_config(official, activation)
        return
    head = build(update_head_config(official, activation))
    inputs = {key: golden[f'in/{key}'].requires_grad_() for key in ('x', 'proposal_feat', 'mask_preds')}
    head.load_state_dict(from_official(golden.state, head))
    kernels, mask_logits, class_logits = head(*inputs.values())
    if size := golden.info.get('mask_shape_argument'):
        mask_logits = resize(mask_logits, size)

    actual = {'mask_preds': mask_logits, 'obj_feat': kernels}
    if class_logits is not None:
        actual['cls_score'] = class_logits
    assert_close(actual, {key: golden[f'out/{key}'] for key in actual}, 1e-5)
    if semantic:  # the gradients of the detection cases are those of its losses
        total = (mask_logits * golden['in/grad_weight_mask']).mean() + (kernels * golden['in/grad_weight_obj']).mean()
        total.backward()
        assert_close({'total': total}, {'total': golden['out/total']}, 1e-4)
        assert_close({key: value.grad for key, value in inputs.items()}, golden.group('out/grad_in/'), 1e-4)
        gradients = {key: parameter.grad for key, parameter in head.named_parameters()}
        assert_close(gradients, from_official(golden.group('out/grad_param/'), head), 1e-4)


def head_and_inputs(dtype=torch.float64, **options):
    torch.manual_seed(0)
    head = KernelUpdateHead(**{'channels': 8, 'interaction': dict(type='knet_plugin.KernelInteraction', num_heads=2,
                                                                  feedforward_channels=16), **options}).to(dtype)
    size = head.kernel_size
    return head, (torch.randn(3, 8, 6, 7, dtype=dtype), torch.randn(3, 5, 8, size, size, dtype=dtype),
                  torch.randn(3, 5, 6, 7, dtype=dtype))


@pytest.mark.parametrize('kernel_size', [1, 3])
def test_batch_of_many_is_many_batches_of_one(kernel_size):
    head, inputs = head_and_inputs(kernel_size=kernel_size, classifier=dict(type='knet_plugin.KernelClassifier',
                                                                            num_classes=4))
    together = head(*inputs)
    apart = [head(*(value[i:i + 1] for value in inputs)) for i in range(3)]
    for got, parts in zip(together, zip(*apart, strict=True), strict=True):
        torch.testing.assert_close(got, torch.cat(parts))


def test_permuting_kernels_permutes_results():
    head, (features, kernels, logits) = head_and_inputs()
    order = torch.randperm(5)
    plain, permuted = head(features, kernels, logits), head(features, kernels[:, order], logits[:, order])
    torch.testing.assert_close(permuted.mask_logits, plain.mask_logits[:, order])
    torch.testing.assert_close(permuted.kernels, plain.kernels[:, order])


def test_updater_off_leaves_pixels_out_of_the_kernels():
    """Table 4a: without the adaptive update, the kernels depend on the kernels alone."""
    head, (features, kernels, logits) = head_and_inputs(updater=None)
    torch.testing.assert_close(head(features, kernels, logits).kernels, head(features + 1, kernels, -logits).kernels)
    assert not any('updater' in key for key in head.state_dict())


def test_interaction_off_isolates_the_kernels():
    """Table 4a: without interaction, changing a kernel changes no other (under a mask that does not couple them)."""
    head, (features, kernels, logits) = head_and_inputs(interaction=None,
                                                        mask_activation=dict(type='knet_plugin.HardMask'))
    before = head(features, kernels, logits).kernels
    kernels = kernels.clone()
    kernels[:, 0] += 1
    after = head(features, kernels, logits).kernels
    torch.testing.assert_close(after[:, 1:], before[:, 1:])
    assert not torch.allclose(after[:, 0], before[:, 0])


def test_hard_masks_pass_no_gradient():
    head, (features, kernels, logits) = head_and_inputs(mask_activation=dict(type='knet_plugin.HardMask'))
    logits.requires_grad_()
    features.requires_grad_()
    head(features, kernels, logits).mask_logits.sum().backward()
    assert logits.grad is None or not logits.grad.any()
    assert features.grad.any()


def test_config_is_left_alone():
    cfg = dict(type='knet_plugin.KernelUpdateHead', channels=8, kernel_size=3,
               updater=dict(type='knet_plugin.KernelUpdater'),
               interaction=dict(type='knet_plugin.KernelInteraction', num_heads=2))
    before = copy.deepcopy(cfg)
    first, second = build(cfg), build(cfg)
    assert cfg == before
    assert first.state_dict().keys() == second.state_dict().keys()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_autocast_survives_large_sums(dtype):
    """One kernel owns a large map, so that Eq. 3 sums to far more than float16 holds."""
    head, _ = head_and_inputs(dtype=torch.float32)
    features = torch.full((1, 8, 160, 160), 40.)
    logits = torch.zeros(1, 3, 160, 160)
    logits[:, 0] = 20
    kernels = torch.randn(1, 3, 8, 1, 1)
    expected = head(features, kernels, logits)
    with torch.autocast('cpu', dtype=dtype):
        update = head(features.to(dtype), kernels, logits.to(dtype))
    assert update.kernels.isfinite().all() and update.mask_logits.isfinite().all()
    torch.testing.assert_close(update.kernels.float(), expected.kernels, rtol=0.1, atol=0.1)


def test_half_precision_weights_and_more_pixels_than_float16_counts():
    head, _ = head_and_inputs(dtype=torch.float16, mask_activation=dict(type='knet_plugin.HardMask'))
    features, logits = torch.full((1, 8, 300, 300), 0.1).half(), torch.ones(1, 2, 300, 300).half()
    update = head(features, torch.randn(1, 2, 8, 1, 1).half(), logits)
    assert update.mask_logits.dtype == torch.float16
    assert update.kernels.isfinite().all() and update.mask_logits.isfinite().all()


@pytest.mark.parametrize('stride', [1, 2])
def test_residual_masks_are_those_of_the_stage_before_plus_the_plain_ones(stride):
    head, (features, kernels, _) = head_and_inputs(mask_branch=dict(residual=True, stride=stride))
    previous = torch.randn(3, 5, 3, 4, dtype=torch.float64)  # of another size than the features
    plain, _ = head_and_inputs(mask_branch=dict(stride=stride))
    plain.load_state_dict(head.state_dict())
    expected = plain(features, kernels, previous).mask_logits + resize(previous, (6, 7))
    torch.testing.assert_close(head(features, kernels, previous).mask_logits, expected)
    head.init_weights()
    torch.testing.assert_close(head(features, kernels, previous).mask_logits, resize(previous, (6, 7)))


def test_initialisation_keeps_improbable_classes():
    """Whatever a head is initialised with, every class starts at a probability of 0.01."""
    head, _ = head_and_inputs(classifier=dict(type='knet_plugin.KernelClassifier', num_classes=4),
                              init_cfg=dict(type='Xavier', layer='Linear', distribution='uniform'))
    before = head.fc_mask.bias.clone()
    head.init_weights()
    torch.testing.assert_close(head.classifier.fc_cls.bias.sigmoid(), torch.full((4, ), 0.01, dtype=torch.float64))
    assert not before.eq(0).all() and head.fc_mask.bias.eq(0).all()  # init_cfg did reach the head


@pytest.mark.parametrize(('options', 'error', 'message'), [
    (dict(kernel_size=2), ValueError, 'kernel_size=2'),
    (dict(channels=8, updater=dict(type='knet_plugin.KernelUpdater', channels=16)), ValueError,
     'updater has channels=16, but the head has channels=8'),
    (dict(interaction=dict(type='knet_plugin.KernelInteraction', num_taps=9)), ValueError,
     'interaction has num_taps=9'),
    (dict(classifier=dict(type='knet_plugin.KernelClassifier', num_classes=2, channels=8)), ValueError,
     'classifier has channels=8'),
    (dict(channels=8, updater=dict(type='knet_plugin.KernelUpdater', group_channels=16)), ValueError,
     'group_channels=16'),
    (dict(mask_branch=dict(num_fc=1)), TypeError, 'num_fc'),
    (dict(updater=dict(type='knet_plugin.KernelUpdater', gate_sigmod=True)), TypeError, 'gate_sigmod'),
])
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        KernelUpdateHead(**options)
