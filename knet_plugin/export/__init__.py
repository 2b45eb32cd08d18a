"""Export of trained models to files that ``knet_plugin.runtime`` runs without torch and the hosts."""

from knet_plugin.export.exporting import export_model, export_program

__all__ = ['export_model', 'export_program']
