"""K-Net in mmseg: the semantic decode head."""

from knet_plugin.semantic.adapters import ADAPTERS, Adapter, Refused
from knet_plugin.semantic.iterative_decode_head import IterativeDecodeHead

__all__ = ['ADAPTERS', 'Adapter', 'IterativeDecodeHead', 'Refused']
