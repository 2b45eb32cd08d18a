"""Results of a model, and pictures of them."""

from knet_plugin.visualization.result import VOID, Instance, Result, Segment

__all__ = ['VOID', 'Instance', 'Result', 'Segment']
