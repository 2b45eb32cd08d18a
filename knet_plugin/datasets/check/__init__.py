"""Judges data before a run: files, classes, images, label maps, metrics and schedule."""

from knet_plugin.datasets.check.check import check_config, check_data
from knet_plugin.datasets.check.hook import DataCheckHook
from knet_plugin.datasets.check.report import DataError

__all__ = ['DataCheckHook', 'DataError', 'check_config', 'check_data']
