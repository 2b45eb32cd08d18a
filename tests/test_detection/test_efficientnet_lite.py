import pytest
import torch
from torch import nn

from knet_plugin.detection.efficientnet_lite import EfficientNetLite0


def test_outputs_have_the_documented_channels_and_strides():
    outputs = EfficientNetLite0()(torch.zeros(1, 3, 64, 96))
    assert [tuple(each.shape[1:]) for each in outputs] == [(24, 16, 24), (40, 8, 12), (112, 4, 6), (320, 2, 3)]


def test_lite_has_relu6_and_no_squeeze_excitation():
    names = {type(module).__name__ for module in EfficientNetLite0().modules()}
    assert 'ReLU6' in names and not names & {'SELayer', 'Swish', 'SiLU'}


@pytest.mark.parametrize('norm_eval', [True, False])
def test_norm_eval_keeps_the_statistics(norm_eval):
    model = EfficientNetLite0(norm_eval=norm_eval).train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and all(norm.training != norm_eval for norm in norms)


def test_the_mode_methods_can_be_chained():
    model = EfficientNetLite0()
    assert model.eval() is model and model.train() is model


def test_frozen_layers_get_no_gradient():
    model = EfficientNetLite0(frozen_stages=4).train()
    model(torch.zeros(1, 3, 32, 32))[-1].sum().backward()
    frozen = [parameter.grad is None for layer in model.layers[:4] for parameter in layer.parameters()]
    assert all(frozen) and model.layers[5][0].expand_conv.conv.weight.grad is not None
