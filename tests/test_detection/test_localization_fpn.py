import pytest
import torch
from golden import Golden, assert_close, assert_gradients_close, build, cases, localization_fpn_config

from knet_plugin.detection import LocalizationFPN


@pytest.mark.parametrize('name', cases('semantic_fpn_*'))
def test_golden(name):
    golden = Golden(name)
    fpn = build(localization_fpn_config(golden.config))
    fpn.load_state_dict(golden.state)
    feats = {f'feat{i}': golden[f'in/feat{i}'].requires_grad_() for i in range(4)}
    outputs = fpn(list(feats.values()))
    assert len(outputs) == golden.info['num_outputs']
    assert_close({f'out{i}': output for i, output in enumerate(outputs)},
                 {f'out{i}': golden[f'out/out{i}'] for i in range(len(outputs))}, 1e-5)
    total = sum((output * golden[f'in/grad_weight{i}']).mean() for i, output in enumerate(outputs))
    assert_close({'total': total}, {'total': golden['out/total']}, 1e-4)
    total.backward()
    assert_close({key: feat.grad for key, feat in feats.items()}, golden.group('out/grad_in/'), 1e-4)
    assert_gradients_close(fpn, golden, 1e-4)


def pyramid(height, width, channels=8):
    sizes = [(-(-height // 2**i), -(-width // 2**i)) for i in range(4)]
    return [torch.randn(2, channels, *size) for size in sizes]


def small(**options):
    return LocalizationFPN(**{'in_channels': 8, 'feat_channels': 8, 'out_channels': 8, 'norm_cfg': None,
                              'positional_encoding': dict(type='mmdet.SinePositionalEncoding', num_feats=4), **options})


@pytest.mark.parametrize('output_level', [0, 1])
@pytest.mark.parametrize('size', [(25, 33), (1, 1), (7, 40)])
def test_any_size(size, output_level):
    """Levels whose sizes are not exact halves meet at the output level's size."""
    feats = pyramid(*size)
    for output in small(output_level=output_level)(feats):
        assert output.shape == (2, 8, *feats[output_level].shape[-2:])


def test_positions_are_what_tells_pixels_apart():
    """A constant pyramid stays constant (away from the zero padding) without positions, and only then."""
    feats = [torch.ones(1, 8, 64 // 2**i, 64 // 2**i) for i in range(4)]
    for options, told in ((dict(positional_encoding=None), False), (dict(), True),
                          (dict(positional_encoding=None, coordinates=True), True)):
        torch.manual_seed(0)
        fpn = small(**options)  # PyTorch's initialisation
        centre = fpn(feats)[0][0, :, 14:18, 14:18].flatten(1)
        assert (centre.std(dim=1).max() > 1e-6).item() == told, options


@pytest.mark.parametrize('options, message', [
    (dict(output_level=2), 'output_level=2'),
    (dict(fuse='mean'), "fuse='mean'"),
])
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_five_levels_are_refused():
    with pytest.raises(ValueError, match='got 5: set neck.num_outs=4'):
        small()([*pyramid(32, 32), torch.randn(2, 8, 2, 2)])
