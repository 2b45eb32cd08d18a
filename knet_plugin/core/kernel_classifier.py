"""What a kernel stands for: class logits read from the kernel itself (the scores of Eq. 6)."""

from mmengine.model import BaseModule, bias_init_with_prob
from torch import Tensor, nn

from knet_plugin.core.layers import fc_norm_act
from knet_plugin.registry import MODELS

__all__ = ['KernelClassifier']


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
        """Initialise as ``init_cfg`` says. Without one, the bias of the last FC survives what a parent's says."""
        super().init_weights()
        if not self.init_cfg:
            self._init_bias()

    def _init_bias(self) -> None:
        # A focal loss starts calm when every class starts improbable (-4.595 for 0.01).
        nn.init.constant_(self.fc_cls.bias, bias_init_with_prob(0.01))

    def forward(self, kernels: Tensor) -> Tensor:
        """(B, N, T, C) kernels to (B, N, num_classes) logits."""
        return self.fc_cls(self.fcs(kernels.sum(dim=-2)))
