"""K-Net in mmseg: the semantic decode head."""

# ruff: noqa: E402
from knet_plugin.compat import require

require('mmseg')

from knet_plugin.semantic.iterative_decode_head import IterativeDecodeHead
from knet_plugin.semantic.adapters import ADAPTERS, Refused, Adapter

__all__ = ['ADAPTERS', 'IterativeDecodeHead', 'Refused', 'Adapter']
