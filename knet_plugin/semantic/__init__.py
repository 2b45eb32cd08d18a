"""K-Net in mmseg: the semantic decode head."""

from knet_plugin.semantic.iterative_decode_head import IterativeDecodeHead
from knet_plugin.semantic.adapters import ADAPTERS, Refused, Adapter

__all__ = ['ADAPTERS', 'IterativeDecodeHead', 'Refused', 'Adapter']
