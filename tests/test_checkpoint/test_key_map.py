import pytest
import torch

from knet_plugin.checkpoint import from_official, to_official
from knet_plugin.core import KernelUpdateHead


def head(**options):
    return KernelUpdateHead(channels=8, interaction=dict(type='knet_plugin.KernelInteraction', num_heads=2), **options)


@pytest.mark.parametrize('options', [
    {}, dict(feat_transform=False, updater=None), dict(interaction=None),
    dict(classifier=dict(type='knet_plugin.KernelClassifier', num_classes=3, num_fcs=2)),
    dict(updater=dict(type='knet_plugin.KernelUpdater', gate_norm_act=True)),
])
def test_there_and_back(options):
    model = KernelUpdateHead(**{'channels': 8, 'interaction': dict(type='knet_plugin.KernelInteraction', num_heads=2),
                                **options})
    state = model.state_dict()
    official = to_official(state, model)
    assert len(official) == len(state)
    assert not any(key.startswith(('updater', 'interaction', 'classifier')) for key in official)
    back = from_official(official, model)
    assert back.keys() == state.keys()
    assert all(back[key] is state[key] for key in state)


def test_every_problem_is_listed():
    model = head()
    official = to_official(model.state_dict(), model)
    del official['ffn_norm.weight'], official['kernel_update_conv.fc_layer.bias']
    official['fc_cls.weight'] = torch.zeros(3, 8)
    official['ema'] = torch.zeros(1)
    official['fc_mask.weight'] = torch.zeros(4, 8)
    with pytest.raises(ValueError) as error:
        from_official(official, model)
    message = str(error.value)
    for part in ('2 unknown', 'fc_cls.weight', 'ema', '2 missing', 'ffn_norm.weight',
                 'kernel_update_conv.fc_layer.bias', '1 of another shape',
                 'fc_mask.weight: (4, 8) in the file, (8, 8) in the model'):
        assert part in message, part


def test_only_our_parts_are_renamed():
    model = torch.nn.ModuleDict({'ffn': torch.nn.Linear(2, 2), 'stage': head()})
    official = to_official(model.state_dict(), model)
    assert {'ffn.weight', 'stage.ffn_norm.weight', 'stage.kernel_update_conv.input_gate.bias'} <= official.keys()
