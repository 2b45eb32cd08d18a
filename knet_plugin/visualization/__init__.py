"""Results of a model, and pictures of them."""

from knet_plugin.visualization.colours import palette
from knet_plugin.visualization.drawing import add_note, draw, draw_or_note, first_part, score_line
from knet_plugin.visualization.result import VOID, Instance, Result, Segment
from knet_plugin.visualization.sheet import sheet

__all__ = ['VOID', 'Instance', 'Result', 'Segment', 'add_note', 'draw', 'draw_or_note', 'first_part', 'palette',
            'score_line', 'sheet']
