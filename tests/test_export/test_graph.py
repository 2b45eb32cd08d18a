"""The parts of exported graphs, against the same without tricks."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from knet_plugin.compat import release
from knet_plugin.export import exporting

pytestmark = pytest.mark.skipif(release(torch.__version__) < exporting.OLDEST_TORCH, reason='this torch cannot export')


class Highest(nn.Module):
    """The highest map, and the sum of each, at twice the size of an image of 30 x 50 in a padded input of 32 x 64."""

    def forward(self, maps, factors, rows, columns):
        from knet_plugin.export.graph import Resize, highest

        inputs, image = torch.zeros(1, 3, 32, 64), torch.zeros(1, 30, 50, 3)
        resize = Resize(maps, inputs, image, rows, columns)
        owner, (sums, ) = highest(maps, resize, factors, lambda large: (large.sum(dim=(1, 2)), ))
        return owner, sums


def arguments(number):
    rows, columns = ((torch.arange(2 * side) + 0.5) / 2 - 0.5 for side in (30, 50))
    noise = torch.Generator().manual_seed(number)
    return (torch.rand(number, 8, 16, generator=noise), torch.rand(number, generator=noise),
            rows.clamp(0, 29), columns.clamp(0, 49))


def plain(maps, factors):
    padded = F.interpolate(maps[None], (32, 64), mode='bilinear')[..., :30, :50]
    large = F.interpolate(padded, (60, 100), mode='bilinear')[0]
    return (large * factors[:, None, None]).argmax(dim=0), large.sum(dim=(1, 2))


def test_highest_of_any_number_of_maps(tmp_path):
    """Also in onnxruntime, whose division of negative integers rounds to zero."""
    onnxruntime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    free = torch.export.Dim.DYNAMIC
    shapes = {'maps': {0: free}, 'factors': {0: free}, 'rows': None, 'columns': None}
    with torch.no_grad():
        program = torch.export.export(Highest(), arguments(37), dynamic_shapes=shapes, strict=False)
    torch.onnx.export(program, dynamo=True, verbose=False).save(tmp_path / 'highest.onnx')
    session = onnxruntime.InferenceSession(str(tmp_path / 'highest.onnx'))
    names = [each.name for each in session.get_inputs()]
    for number in (2, 16, 37, 50):
        values = arguments(number)
        expected = plain(*values[:2])
        inputs = dict(zip(names, (value.numpy() for value in values), strict=True))
        for found in (Highest()(*values), map(torch.from_numpy, session.run(None, inputs))):
            owner, sums = found
            assert (owner != expected[0]).float().mean() < 1e-3  # ties in the last digit
            torch.testing.assert_close(sums, expected[1], rtol=1e-5, atol=0)


@pytest.mark.parametrize('size', [(1, 1), (6, 6), (3, 2), (7, 30)])
def test_adaptive_pooling(size):
    from knet_plugin.export.fixes import fix_pooling

    pool = nn.AdaptiveAvgPool2d(size)
    maps = torch.rand(2, 3, 20, 31)
    expected = pool(maps)
    fix_pooling(pool)
    assert torch.allclose(pool(maps), expected, atol=1e-6)


def test_the_first_of_equal_maps_is_the_highest():
    maps, factors, *places = arguments(1)
    with torch.no_grad():
        owner, _ = Highest()(maps.repeat(20, 1, 1), factors.repeat(20), *places)
    assert not owner.any()
