"""Configs of other K-Nets: mmseg's own and those of the official release, as ours."""

from knet_plugin.migration.migrate import load_source, migrate_config
from knet_plugin.migration.options import MigrationError, Report

__all__ = ['MigrationError', 'Report', 'load_source', 'migrate_config']
