import pytest
import torch

from knet_plugin.core.kernel_interaction import KernelInteraction


def interaction(num_taps=1):
    return KernelInteraction(8, num_taps, num_heads=2, feedforward_channels=16).double()


@pytest.mark.parametrize('num_taps', [1, 9])
def test_a_kernel_depends_on_those_that_it_sees_alone(num_taps):
    """The Jacobian from kernels to kernels has the pattern of the mask, in each image its own."""
    torch.manual_seed(0)
    part = interaction(num_taps)
    hidden = (torch.rand(3, 5, 5) > 0.5) & ~torch.eye(5, dtype=torch.bool)
    kernels = torch.randn(3, 5, num_taps, 8, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda kernels: part(kernels, hidden).square().sum((2, 3)), kernels)
    influence = jacobian.abs().sum((-2, -1))  # image and kernel out, image and kernel in
    for image in range(3):
        assert torch.equal(influence[image, :, image] > 0, ~hidden[image])
        assert not influence[image][:, [i for i in range(3) if i != image]].any()


def test_hiding_kernels_is_leaving_them_out():
    torch.manual_seed(0)
    part = interaction()
    kernels = torch.randn(2, 6, 1, 8, dtype=torch.float64)
    hidden = torch.zeros(2, 6, 6, dtype=torch.bool)
    hidden[:, :4, 4:] = True
    torch.testing.assert_close(part(kernels, hidden)[:, :4], part(kernels[:, :4]))
    torch.testing.assert_close(part(kernels, hidden)[:, 4:], part(kernels)[:, 4:])
