"""Weights of other K-Nets."""

from knet_plugin.checkpoint.key_map import from_official, to_official

__all__ = ['from_official', 'to_official']
