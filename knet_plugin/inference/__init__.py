"""Prediction with a trained model: results, files, reports, and faster models."""

from knet_plugin.inference.optimize import OptimizeForInferenceHook, optimize_for_inference
from knet_plugin.inference.picture_hooks import PictureHook, SheetHook
from knet_plugin.inference.report import ReportHook

__all__ = ['OptimizeForInferenceHook', 'PictureHook', 'ReportHook', 'SheetHook', 'optimize_for_inference']
