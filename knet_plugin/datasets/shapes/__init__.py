"""Shapes, a synthetic data set in the formats of COCO and ADE20K."""

from knet_plugin.datasets.shapes.scene import CLASSES, PALETTE, STUFF_CLASSES, THING_CLASSES, Scene, Style, draw_scene
from knet_plugin.datasets.shapes.writer import make_shapes

__all__ = ['CLASSES', 'PALETTE', 'STUFF_CLASSES', 'THING_CLASSES', 'Scene', 'Style', 'draw_scene', 'make_shapes']
