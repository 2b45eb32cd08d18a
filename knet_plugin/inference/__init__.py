"""Faster inference with a trained model."""

from knet_plugin.inference.deviation import largest_deviation
from knet_plugin.inference.optimize import OptimizeForInferenceHook, optimize_for_inference

__all__ = ['OptimizeForInferenceHook', 'largest_deviation', 'optimize_for_inference']
