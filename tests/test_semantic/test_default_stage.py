import pytest

from knet_plugin.semantic.default_stage import default_stage_config, semantic_stage_configs


@pytest.mark.parametrize(('channels', 'group_channels', 'num_heads'), [
    (512, 256, 8), (256, 256, 8), (128, 128, 8), (270, 270, 6), (100, 100, 5), (7, 7, 1),
])
def test_defaults_fit_the_classifier(channels, group_channels, num_heads):
    cfg = default_stage_config(channels, num_kernels=19)
    assert cfg['updater']['group_channels'] == group_channels
    assert cfg['interaction']['num_heads'] == num_heads


def test_given_options_override_the_defaults():
    stage, = semantic_stage_configs(dict(interaction=dict(feedforward_channels=64), num_classes=19), 1, 512, 19, 19)
    assert stage['interaction'] == dict(type='knet_plugin.KernelInteraction', num_heads=8, feedforward_channels=64)
    assert stage['updater']['group_channels'] == 256 and 'num_classes' not in stage


@pytest.mark.parametrize('activation', [None, dict(type='SoftmaxMask')])
def test_softmax_over_one_kernel_is_refused(activation):
    with pytest.raises(ValueError, match='SigmoidMask'):
        semantic_stage_configs(dict(mask_activation=activation), 1, 16, 1, 2)
