"""Adaptive kernel update: combine each kernel with its group feature (Eq. 4 and 5)."""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from knet_plugin.registry import MODELS

__all__ = ['KernelUpdater']


@MODELS.register_module()
class KernelUpdater(BaseModule):
    """Eq. 4 and 5 of the paper, applied to each kernel separately.

    ::

        F^G = phi_1(F^K) * phi_2(K)                                          Eq. 4
        G^K = sigmoid(LN(psi_1(F^G)));  G^F = sigmoid(LN(psi_2(F^G)))        Eq. 5
        K~  = G^F * LN(psi_3(F^K)) + G^K * LN(psi_4(K))                      Eq. 5
        out = ReLU(LN(FC(K~)))

    ``phi_1`` and ``psi_3`` share their input, as do ``phi_2`` and ``psi_4``: each pair is one linear layer.

    The published semantic models split a kernel of 512 channels into two groups of 256 channels that share the weights.

    Args:
        channels: Channels C of a kernel tap and of its group feature.
        group_channels: Channels of a group; must divide C. None: one group of C.
        feat_channels: Width inside, per group. None: ``group_channels``.
        out_channels: Channels of an updated group. None: ``group_channels``.
        gate_sigmoid: Whether the gates pass through a sigmoid.
        gate_norm_act: Whether ``F^G`` passes through LN and ReLU before the gates.
        activate_out: Whether both summands of ``K~`` pass through ReLU before they are gated.
        init_cfg: mmengine's initialisation config; None keeps PyTorch's.
    """

    def __init__(self,
                 channels: int = 256,
                 group_channels: int | None = None,
                 feat_channels: int | None = None,
                 out_channels: int | None = None,
                 gate_sigmoid: bool = True,
                 gate_norm_act: bool = False,
                 activate_out: bool = False,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        group = channels if group_channels is None else group_channels
        feat = group if feat_channels is None else feat_channels
        out = group if out_channels is None else out_channels
        if channels % group:
            raise ValueError(f'channels must be a multiple of group_channels, got channels={channels} and '
                             f'group_channels={group}')
        self.groups = channels // group
        self.gate_sigmoid = gate_sigmoid
        self.activate_out = activate_out

        self.feature_layer = nn.Linear(group, 2 * feat)  # phi_1, psi_3
        self.kernel_layer = nn.Linear(group, 2 * feat)  # phi_2, psi_4
        self.gate_norm = nn.LayerNorm(feat) if gate_norm_act else None
        self.kernel_gate = nn.Linear(feat, feat)  # psi_1
        self.feature_gate = nn.Linear(feat, feat)  # psi_2
        self.kernel_gate_norm = nn.LayerNorm(feat)
        self.feature_gate_norm = nn.LayerNorm(feat)
        self.feature_norm = nn.LayerNorm(feat)
        self.kernel_norm = nn.LayerNorm(feat)
        self.fc = nn.Linear(feat, out)
        self.fc_norm = nn.LayerNorm(out)
        self.activation = nn.ReLU()

    def forward(self, group_features: Tensor, kernels: Tensor) -> Tensor:
        """Update ``K_{i-1}``, (B, N, T, C), by ``F^K``, (B, N, C), in the precision of the weights."""
        if self.groups > 1 and kernels.shape[-2] > 1:
            raise ValueError(f'{self.groups} channel groups need 1 x 1 kernels, got {kernels.shape[-2]} taps')
        dtype = self.fc.weight.dtype
        with torch.autocast(kernels.device.type, enabled=False):  # group features exceed the range of float16
            return self._update(group_features.to(dtype), kernels.to(dtype))

    def _update(self, group_features: Tensor, kernels: Tensor) -> Tensor:
        # Each group is an independent kernel: (B, N, G, 1, c) and (B, N, G, T, c); T = 1 if G > 1.
        features = group_features.unflatten(-1, (self.groups, -1)).unsqueeze(-2)
        kernels = kernels.unflatten(-1, (self.groups, -1)).transpose(-2, -3)

        phi_1, psi_3 = self.feature_layer(features).chunk(2, dim=-1)
        phi_2, psi_4 = self.kernel_layer(kernels).chunk(2, dim=-1)
        gate_input = phi_1 * phi_2  # F^G
        if self.gate_norm is not None:
            gate_input = self.activation(self.gate_norm(gate_input))
        kernel_gate = self.kernel_gate_norm(self.kernel_gate(gate_input))  # G^K
        feature_gate = self.feature_gate_norm(self.feature_gate(gate_input))  # G^F
        if self.gate_sigmoid:
            kernel_gate, feature_gate = kernel_gate.sigmoid(), feature_gate.sigmoid()
        psi_3, psi_4 = self.feature_norm(psi_3), self.kernel_norm(psi_4)
        if self.activate_out:
            psi_3, psi_4 = self.activation(psi_3), self.activation(psi_4)
        updated = feature_gate * psi_3 + kernel_gate * psi_4  # K~

        updated = self.activation(self.fc_norm(self.fc(updated)))
        return updated.transpose(-2, -3).flatten(-2)
