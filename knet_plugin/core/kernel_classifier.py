"""Class logits of a kernel (the class branch of a stage)."""

from mmengine.model import BaseModule, bias_init_with_prob
from torch import Tensor, nn

from knet_plugin.registry import MODELS

__all__ = ['KernelClassifier', 'fc_norm_act']


def fc_norm_act(channels: int, num_fcs: int) -> nn.Sequential:
    """``num_fcs`` times FC (without bias) - LayerNorm - ReLU, all ``channels`` wide."""
    layers: list[nn.Module] = []
    for _ in range(num_fcs):
        layers += [nn.Linear(channels, channels, bias=False), nn.LayerNorm(channels), nn.ReLU()]
    return nn.Sequential(*layers)


@MODELS.register_module()
class KernelClassifier(BaseModule):
    """``FC(FC-LN-ReLU(sum over taps of K_i))``: sigmoid class logits without a background class.

    Args:
        num_classes: Classes, things and stuff together.
        channels: Channels C of a kernel tap.
        num_fcs: FC-LN-ReLU blocks before the last FC.
        init_cfg: mmengine's initialisation config; None keeps PyTorch's.
    """

    def __init__(self, num_classes: int, channels: int = 256, num_fcs: int = 1, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.num_classes = num_classes
        self.fcs = fc_norm_act(channels, num_fcs)
        self.fc_cls = nn.Linear(channels, num_classes)
        self._init_bias()

    def init_weights(self) -> None:
        """Apply ``init_cfg``. Without one, restore the bias of the last FC after a parent's ``init_cfg``."""
        super().init_weights()
        if not self.init_cfg:
            self._init_bias()

    def _init_bias(self) -> None:
        # A focal loss needs every class to start improbable: a bias of -4.595 for a probability of 0.01.
        nn.init.constant_(self.fc_cls.bias, bias_init_with_prob(0.01))

    def forward(self, kernels: Tensor) -> Tensor:
        """(B, N, T, C) kernels to (B, N, num_classes) logits."""
        return self.fc_cls(self.fcs(kernels.sum(dim=-2)))
