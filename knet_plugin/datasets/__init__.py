"""The synthetic data set Shapes, made on demand and read by mmdet's and mmseg's stock data set classes."""

from knet_plugin.datasets.shapes import CLASSES, PALETTE, STUFF_CLASSES, THING_CLASSES, Scene, draw_scene
from knet_plugin.datasets.shapes_style import Style
from knet_plugin.datasets.shapes_writer import make_shapes

__all__ = ['CLASSES', 'PALETTE', 'STUFF_CLASSES', 'THING_CLASSES', 'Scene', 'Style', 'draw_scene', 'make_shapes']
