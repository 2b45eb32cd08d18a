"""Opens exported models: one small class for each format."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from knet_plugin.runtime.model_info import INFO_KEY, EngineError, ModelInfo

__all__ = ['ENGINE_SUFFIXES', 'Engine', 'open_engine']


class Engine(Protocol):
    """An opened model; several threads may call it at once."""

    info: ModelInfo

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs by name."""


class OnnxEngine:
    """onnxruntime, on the CPU."""

    def __init__(self, path: Path, threads: int) -> None:
        onnxruntime = _imported('onnxruntime', path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
        self.info = ModelInfo.from_json(self._session.get_modelmeta().custom_metadata_map.get(INFO_KEY), path)

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(self.info.outputs, self._session.run(None, dict(inputs)), strict=True))


class OpenVinoEngine:
    """OpenVINO, on the CPU."""

    def __init__(self, path: Path, threads: int) -> None:
        openvino = _imported('openvino', path)
        core = openvino.Core()
        model = core.read_model(path)
        self.info = ModelInfo.from_json(model.get_rt_info(INFO_KEY).astype(str) if model.has_rt_info(INFO_KEY) else '',
                                        path)
        # The default, bfloat16 where the processor has it, is not the precision that was exported.
        options = {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': threads}
        self._model = core.compile_model(model, 'CPU', options)

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = self._model.create_infer_request().infer(dict(inputs))  # a request is for one thread
        return {name: np.array(found[i]) for i, name in enumerate(self.info.outputs)}  # the conversion renames some


class TorchEngine:
    """torch, without the hosts."""

    def __init__(self, path: Path, threads: int) -> None:
        torch = _imported('torch', path)
        texts = {INFO_KEY: ''}
        program = torch.export.load(path, extra_files=texts)
        self.info = ModelInfo.from_json(texts[INFO_KEY], path)
        self._torch = torch
        self._module = program.module()

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with self._torch.no_grad():
            found = self._module(**{name: self._torch.from_numpy(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in found.items()}


_ENGINES: dict[str, type] = {'.onnx': OnnxEngine, '.xml': OpenVinoEngine, '.pt2': TorchEngine}
ENGINE_SUFFIXES = tuple(_ENGINES)
_EXTRAS = {'torch': 'torch', 'onnxruntime': '"knet_plugin[runtime]"', 'openvino': 'openvino'}


def open_engine(path: str | Path, threads: int = 0) -> Engine:
    """Open an exported model.

    Args:
        path: A file that ``knet export`` wrote: .onnx, .xml (OpenVINO) or .pt2 (torch.export).
        threads: Threads of the engine; 0, all cores. torch has one number for the process, which stays.

    Raises:
        EngineError: There is no such file, it is no model of ours, or its engine is not installed.
    """
    path = Path(path).expanduser()
    if path.suffix not in _ENGINES:
        raise EngineError(f'{path}: an exported model ends with {", ".join(ENGINE_SUFFIXES)}')
    if not path.is_file():
        raise EngineError(f'there is no file {path}')
    try:
        return _ENGINES[path.suffix](path, threads or os.cpu_count() or 1)
    except EngineError:
        raise
    except Exception as error:  # each engine has its own errors
        reason = str(error).strip().splitlines()
        raise EngineError(f'{path} cannot be opened as an exported model; export it again '
                          f'({reason[0] if reason else type(error).__name__})') from error


def _imported(package: str, path: Path) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise EngineError(f'{path} needs {package}: pip install {_EXTRAS[package]}') from error
