"""Checkpoints of the official release, of mmseg and of this package: reading, renaming, converting."""

from knet_plugin.checkpoint.convert import ConversionReport, convert_checkpoint, convert_weights
from knet_plugin.checkpoint.key_map import from_official, to_official
from knet_plugin.checkpoint.reading import CheckpointError, read_checkpoint, weights_of

__all__ = ['CheckpointError', 'ConversionReport', 'convert_checkpoint', 'convert_weights', 'from_official',
           'read_checkpoint', 'to_official', 'weights_of']
