import copy

import pytest
import torch
from detection_cases import sample
from mmengine.config import ConfigDict

from knet_plugin.registry import MODELS

THINGS, STUFF = 3, 2


def config(**options):
    norm_cfg = dict(type='GN', num_groups=2)
    fpn = dict(type='knet_plugin.LocalizationFPN', in_channels=8, feat_channels=8, out_channels=8, norm_cfg=norm_cfg,
               positional_encoding=dict(type='mmdet.SinePositionalEncoding', num_feats=4))
    return dict(dict(
        type='knet_plugin.KernelIterHead', num_things_classes=THINGS, num_stuff_classes=STUFF, num_stages=2,
        kernel_head=dict(num_kernels=4, channels=8, localization_fpn=fpn, norm_cfg=norm_cfg),
        kernel_update_head=dict(interaction=dict(feedforward_channels=16)),
        criterion=dict(loss_rank=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False, loss_weight=0.1))), **options)


def head(**options):
    torch.manual_seed(0)
    built = MODELS.build(config(**options))
    built.init_weights()
    return built


def feats(batch=3):
    torch.manual_seed(1)
    return [torch.randn(batch, 8, 16 // 2**i, 24 // 2**i) for i in range(4)]


def samples(objects=(2, 0, 9)):
    """Images of 64 x 96, one with more objects than kernels."""
    torch.manual_seed(2)
    batch = []
    for i, count in enumerate(objects):
        semantic = torch.randint(THINGS, THINGS + STUFF, (64, 96))
        masks = (torch.rand(count, 64, 96) > 0.8).long()
        batch.append(sample(masks, torch.randint(THINGS, (count, )), (64, 96), semantic, img_path=f'{i}.jpg'))
    return batch


def loss_of(losses):
    return sum(value for key, value in losses.items() if 'loss' in key)


@pytest.mark.parametrize('objects', [(2, 0, 9), (0, 0, 0), (1, 1, 1)])
def test_every_parameter_takes_part_and_keys_never_change(objects):
    """So that processes with unlike images neither wait for each other nor disagree on what there is."""
    built = head()
    losses = built.loss(feats(), samples(objects))
    assert set(losses) == {'s0.loss_mask', 's0.loss_dice', 's0.loss_rank', 's0.loss_seg',
                           *(f's{i}.{name}' for i in (1, 2)
                             for name in ('loss_mask', 'loss_dice', 'loss_rank', 'loss_cls', 'pos_acc'))}
    assert all(value.isfinite().all() for value in losses.values())
    loss_of(losses).backward()
    assert all(parameter.grad is not None for parameter in built.parameters())
    for part in (built.kernel_head, *built.kernel_update_head):
        assert any(parameter.grad.any() for parameter in part.parameters())


@pytest.mark.parametrize('options', [
    dict(kernel_update_head=dict(updater=None)),
    dict(kernel_update_head=dict(interaction=None)),
    dict(kernel_update_head=dict(updater=None, interaction=None)),
    dict(num_stages=1, kernel_update_head=None, kernel_head=dict(config()['kernel_head'], num_kernels=7)),
    dict(num_stages=5),
])
def test_ablations_train(options):
    """Rows of Tables 4a, 4c and 4d."""
    built = head(**options)
    loss_of(built.loss(feats(), samples())).backward()
    assert all(parameter.grad is not None for parameter in built.parameters())


def test_stage_loss_weights_scale_losses_alone():
    weights = dict(config()['criterion'], stage_loss_weights=[1, 3])
    plain, weighted = head().loss(feats(), samples()), head(criterion=weights).loss(feats(), samples())
    for key, value in plain.items():
        factor = 3 if key.startswith('s2.loss') else 1
        torch.testing.assert_close(weighted[key], factor * value)


def test_losses_of_features_that_are_not_finite():
    levels = feats()
    levels[0][2, 0, 0, 0] = float('nan')
    assert len(head().loss(levels, samples())) == 14


def test_prediction_classifies_in_the_last_stage_only():
    built = head().eval()
    calls = []
    for i, stage in enumerate(built.kernel_update_head, start=1):
        stage.classifier.register_forward_hook(lambda *args, i=i: calls.append(i))
    with torch.no_grad():
        classes, masks = built.predict(feats(), [])
        assert calls == [2]
        _, updates = built.stages(feats())
    torch.testing.assert_close(classes, updates[-1].class_logits)
    assert masks.shape[-2:] == (16, 24) and updates[-1].mask_logits.shape[-2:] == (8, 12)


@pytest.mark.parametrize('stuff', [0, 2])
@pytest.mark.parametrize('with_cp', [False, True])
def test_prediction_leaves_out_semantic_logits_that_only_the_loss_reads(stuff, with_cp):
    built = head(num_stuff_classes=stuff, with_cp=with_cp).eval()
    expected = built.stages(feats())[1][-1]
    calls = []
    built.kernel_head.conv_seg.register_forward_hook(lambda *args: calls.append(1))
    classes, _ = built.predict(feats(), [])
    assert len(calls) == (stuff > 0)
    assert torch.equal(classes, expected.class_logits)


def test_configs_are_not_changed():
    cfg = ConfigDict(config())
    before = copy.deepcopy(cfg)
    MODELS.build(cfg)
    MODELS.build(cfg)
    assert cfg == before


def test_initialisation_of_the_stages_is_xavier_unless_they_say_otherwise():
    constant = head(kernel_update_head=dict(updater=dict(init_cfg=dict(type='Constant', layer='Linear', val=3))))
    assert (constant.kernel_update_head[0].updater.feature_layer.weight == 3).all()
    built = head()
    weight = built.kernel_update_head[0].updater.feature_layer.weight
    assert weight.abs().max() <= (6 / sum(weight.shape))**0.5 < 1.05 * weight.abs().max()
    torch.testing.assert_close(built.kernel_update_head[1].classifier.fc_cls.bias, torch.full((5, ), -4.59512))


@pytest.mark.parametrize('options, message', [
    (dict(num_stages=0), 'num_stages=0'),
    (dict(kernel_head=dict(num_things_classes=4)), 'kernel_head has num_things_classes=4'),
    (dict(criterion=dict(num_stuff_classes=1)), 'criterion has num_stuff_classes=1'),
    (dict(kernel_update_head=dict(classifier=dict(num_classes=80))), 'num_classes=5'),
    (dict(kernel_update_head=dict(classifier=None)), r'kernel_update_head\[0\]\.classifier must have num_classes=5'),
    (dict(kernel_update_head=dict(channels=16)), r'kernel_update_head\[0\] has channels=16, but the kernel_head'),
    (dict(kernel_update_head=[{}]), 'one config for each of num_stages=2'),
])
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(config(**options))
