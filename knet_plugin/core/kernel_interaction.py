"""Kernel interaction: attention among the kernels of an image (first half of Eq. 6)."""

from mmcv.cnn.bricks.transformer import FFN
from mmengine.model import BaseModule
from torch import Tensor, nn

from knet_plugin.registry import MODELS

__all__ = ['KernelInteraction']


@MODELS.register_module()
class KernelInteraction(BaseModule):
    """``K_i = FFN(MHSA(K~))``, each with residual and LayerNorm. Kernels are a set: there is no positional encoding.

    Attention sees a kernel as one vector of its T * C values, tap after tap; the FFN works on each tap.

    Args:
        channels: Channels C of a kernel tap.
        num_taps: Taps T = K * K of a kernel.
        num_heads: Attention heads; must divide T * C.
        feedforward_channels: Hidden width of the FFN. None: no FFN.
        num_fcs: Linear layers of the FFN.
        dropout: Dropout probability in attention weights and FFN.
        init_cfg: mmengine's initialisation config; None keeps PyTorch's.
    """

    def __init__(self,
                 channels: int = 256,
                 num_taps: int = 1,
                 num_heads: int = 8,
                 feedforward_channels: int | None = 2048,
                 num_fcs: int = 2,
                 dropout: float = 0.0,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        embed_dims = num_taps * channels
        self.channels = channels
        self.attention = nn.MultiheadAttention(embed_dims, num_heads, dropout=dropout, batch_first=True)
        self.attention_norm = nn.LayerNorm(embed_dims)
        if feedforward_channels is None:
            self.ffn = None
        else:
            self.ffn = FFN(channels, feedforward_channels, num_fcs, ffn_drop=dropout)  # with the residual
            self.ffn_norm = nn.LayerNorm(channels)

    def forward(self, kernels: Tensor, hidden: Tensor | None = None) -> Tensor:
        """``K~`` to ``K_i``, both (B, N, T, C).

        Kernel n does not see kernel m of its image where ``hidden``, (B, N, N) of bool, is true at (n, m). It must see
        at least one. None: each sees all.
        """
        if hidden is not None:
            hidden = hidden.repeat_interleave(self.attention.num_heads, dim=0)  # B * heads, N, N
        flat = kernels.flatten(-2)  # B, N, T * C
        attended, _ = self.attention(flat, flat, flat, need_weights=False, attn_mask=hidden)
        flat = self.attention_norm(flat + attended)
        kernels = flat.unflatten(-1, (-1, self.channels))
        if self.ffn is not None:
            kernels = self.ffn_norm(self.ffn(kernels))
        return kernels
