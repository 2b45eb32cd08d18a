"""Runs exported models with onnxruntime, OpenVINO or torch alone: no host package is imported."""

from knet_plugin.runtime.engines import ENGINE_SUFFIXES, open_engine
from knet_plugin.runtime.model_info import EngineError, ModelInfo
from knet_plugin.runtime.predictor import Predictor

__all__ = ['ENGINE_SUFFIXES', 'EngineError', 'ModelInfo', 'Predictor', 'open_engine']
