"""Semantic segmentation in mmseg: the decode head, and adapters to mmseg's own heads."""
# ruff: noqa: E402, the host is required first

from knet_plugin.compat import require

require('mmseg')

from knet_plugin.semantic.adapters import ADAPTERS, Adapter, Refused
from knet_plugin.semantic.iterative_decode_head import IterativeDecodeHead

__all__ = ['ADAPTERS', 'Adapter', 'IterativeDecodeHead', 'Refused']
