"""Small layers that the branches of an update head share."""

from torch import nn

__all__ = ['fc_norm_act']


def fc_norm_act(channels: int, num_fcs: int) -> nn.Sequential:
    """``num_fcs`` times FC (without bias) - LayerNorm - ReLU, all ``channels`` wide."""
    layers: list[nn.Module] = []
    for _ in range(num_fcs):
        layers += [nn.Linear(channels, channels, bias=False), nn.LayerNorm(channels), nn.ReLU()]
    return nn.Sequential(*layers)
