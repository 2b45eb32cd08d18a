import pytest

from knet_plugin.core import KernelUpdater
from knet_plugin.semantic.stage_config import default_stage_config, resolve_stage_configs


@pytest.mark.parametrize(('channels', 'group_channels', 'num_heads'), [
    (512, 256, 8), (256, 256, 8), (1024, 256, 8), (128, 128, 8), (270, 270, 6), (16, 16, 8), (100, 100, 5), (7, 7, 1),
])
def test_defaults_fit_the_classifier(channels, group_channels, num_heads):
    cfg = default_stage_config(channels, num_kernels=19)
    assert cfg['updater']['group_channels'] == group_channels
    assert cfg['interaction']['num_heads'] == num_heads


def test_parts_are_merged():
    stage, = resolve_stage_configs(dict(interaction=dict(feedforward_channels=64), num_mask_fcs=2), 1, 512, 19, 19)
    assert stage['interaction'] == dict(type='knet_plugin.KernelInteraction', num_heads=8, feedforward_channels=64)
    assert stage['num_mask_fcs'] == 2
    assert stage['updater']['group_channels'] == 256


def test_another_type_replaces_a_part():
    stage, = resolve_stage_configs(dict(mask_activation=dict(type='knet_plugin.HardMask', threshold=0.4), updater=None),
                                   1, 512, 19, 19)
    assert stage['mask_activation'] == dict(type='knet_plugin.HardMask', threshold=0.4)
    assert stage['updater'] is None


@pytest.mark.parametrize('name', ['knet_plugin.KernelUpdater', 'KernelUpdater', KernelUpdater])
def test_the_default_s_own_type_may_be_named_in_any_way(name):
    stage, = resolve_stage_configs(dict(updater=dict(type=name, gate_sigmoid=False)), 1, 512, 19, 19)
    assert stage['updater'] == dict(type='knet_plugin.KernelUpdater', group_channels=256, gate_sigmoid=False)


def test_none_as_mask_activation_is_the_default():
    stage, = resolve_stage_configs(dict(mask_activation=None), 1, 16, 1, 2)
    assert stage['mask_activation']['type'] == 'knet_plugin.SigmoidMask'


def test_softmax_over_one_kernel_is_refused():
    with pytest.raises(ValueError, match='SigmoidMask'):
        resolve_stage_configs(dict(mask_activation=dict(type='SoftmaxMask')), 1, 16, 1, 2)


def test_stages_may_differ():
    stages = resolve_stage_configs([dict(num_mask_fcs=1), dict(num_mask_fcs=3)], 2, 256, 19, 19)
    assert [stage['num_mask_fcs'] for stage in stages] == [1, 3]
