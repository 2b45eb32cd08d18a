"""Judges data before a run: files, classes, images, label maps, metrics and schedule."""

from knet_plugin.datasets.check.check import check_config, check_data
from knet_plugin.datasets.check.files import read_categories
from knet_plugin.datasets.check.hook import DataCheckHook
from knet_plugin.datasets.check.report import Census, DataError, Finding, Report

__all__ = ['Census', 'DataCheckHook', 'DataError', 'Finding', 'Report', 'check_config', 'check_data',
           'read_categories']
