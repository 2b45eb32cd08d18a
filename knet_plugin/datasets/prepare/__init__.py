"""``knet data prepare``: from annotated images in the formats that people have to one folder for all tasks.

A reader for each format (``masks``, ``label_maps``, ``coco``, ``coco_panoptic``, ``yolo``, ``labelme``) gives
``Sample`` with regions as run-length encodings, one image at a time; ``writer`` writes all of them.
"""

from knet_plugin.datasets.prepare.formats import FORMATS
from knet_plugin.datasets.prepare.prepare import Prepared, prepare
from knet_plugin.datasets.prepare.sample import Options
from knet_plugin.datasets.prepare.sources import find_sources

__all__ = ['FORMATS', 'Options', 'Prepared', 'find_sources', 'prepare']
