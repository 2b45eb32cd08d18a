"""Writes an exported program as a file that carries its description."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from knet_plugin.export.precision import halve_weights, quantize
from knet_plugin.runtime.model_info import INFO_KEY, EngineError, ModelInfo

__all__ = ['write_program']


def write_program(program: Any, path: Path, info: ModelInfo, inputs: Iterable[Mapping[str, np.ndarray]] = ()) -> None:
    """Write a ``torch.export.ExportedProgram`` in the format of the file's ending.

    OpenVINO writes the weights to a second file beside it, with the ending .bin.

    Args:
        program: The program.
        path: The file.
        info: Its description. With the precision int8, the convolutions are quantized.
        inputs: Inputs of the model, for quantization.

    Raises:
        EngineError: The exporter's package is not installed.
    """
    if path.suffix == '.pt2':
        torch.export.save(program, path, extra_files={INFO_KEY: info.to_json()})
        return
    draft = path.with_name('draft.onnx')
    _write_onnx(program, draft, info)
    if info.precision == 'int8':
        quantize(draft, inputs)
    elif info.precision == 'fp16' and path.suffix == '.onnx':  # OpenVINO's writer halves them itself
        halve_weights(draft)
    if path.suffix == '.xml':
        _convert_to_openvino(draft, path, info)
        draft.unlink()
    else:
        draft.rename(path)


def _write_onnx(program: Any, path: Path, info: ModelInfo) -> None:
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            found = torch.onnx.export(program, dynamo=True, verbose=False, output_names=info.outputs)
        except ImportError as error:
            raise EngineError(f'exporting to ONNX needs {error.name}: pip install "knet_plugin[export]"') from error
    assert found is not None
    for node in found.model.graph.all_nodes():
        node.metadata_props.clear()  # where in our code it comes from, with paths of this machine
    found.model.metadata_props[INFO_KEY] = info.to_json()
    found.save(path)


def _convert_to_openvino(source: Path, path: Path, info: ModelInfo) -> None:
    try:
        import openvino
    except ImportError as error:
        raise EngineError('exporting to OpenVINO needs openvino: pip install openvino') from error
    model = openvino.convert_model(source)
    model.set_rt_info(info.to_json(), INFO_KEY)
    openvino.save_model(model, path, compress_to_fp16=info.precision == 'fp16')
