"""Results of a model, and pictures of them."""

from knet_plugin.visualization.colours import palette
from knet_plugin.visualization.drawing import draw, draw_or_note, score_line
from knet_plugin.visualization.result import PARTS, VOID, Instance, Result, Segment
from knet_plugin.visualization.sheet import sheet

__all__ = ['PARTS', 'VOID', 'Instance', 'Result', 'Segment', 'draw', 'draw_or_note', 'palette', 'score_line', 'sheet']
