"""The synthetic data set Shapes, made on demand and read by mmdet's and mmseg's stock data set classes."""

from knet_plugin.datasets.shapes.make import CLASSES, PALETTE, STUFF_CLASSES, THING_CLASSES, Scene, draw_scene
from knet_plugin.datasets.shapes.style import Style
from knet_plugin.datasets.shapes.writer import make_shapes

__all__ = ['CLASSES', 'PALETTE', 'STUFF_CLASSES', 'THING_CLASSES', 'Scene', 'Style', 'draw_scene', 'make_shapes']
