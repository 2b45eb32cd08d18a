"""Writes an exported program as a file that carries its description."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from knet_plugin.runtime.model_info import INFO_KEY, EngineError, ModelInfo

__all__ = ['write_program']


def write_program(program: Any, path: Path, info: ModelInfo, inputs: Sequence[str]) -> None:
    """Write a ``torch.export.ExportedProgram`` in the format of the file's ending.

    OpenVINO writes the weights to a second file beside it, with the ending .bin.

    Args:
        program: The program.
        path: The file.
        info: Its description.
        inputs: Names of the inputs.

    Raises:
        EngineError: The exporter's package is not installed.
    """
    writers: dict[str, Callable[..., None]] = {'.onnx': _write_onnx, '.xml': _write_openvino, '.pt2': _write_torch}
    writers[path.suffix](program, path, info, inputs)


def _write_torch(program: Any, path: Path, info: ModelInfo, inputs: Sequence[str]) -> None:
    torch.export.save(program, path, extra_files={INFO_KEY: info.to_json()})


def _write_onnx(program: Any, path: Path, info: ModelInfo, inputs: Sequence[str]) -> None:
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            found = torch.onnx.export(program, dynamo=True, verbose=False, input_names=inputs,
                                      output_names=info.outputs)
        except ImportError as error:
            raise EngineError(f'exporting to ONNX needs {error.name}: pip install "knet_plugin[export]"') from error
    assert found is not None
    found.model.metadata_props[INFO_KEY] = info.to_json()
    found.save(path)


def _write_openvino(program: Any, path: Path, info: ModelInfo, inputs: Sequence[str]) -> None:
    try:
        import openvino
    except ImportError as error:
        raise EngineError('exporting to OpenVINO needs openvino: pip install openvino') from error
    draft = path.with_suffix('.onnx')
    _write_onnx(program, draft, info, inputs)
    model = openvino.convert_model(draft)
    draft.unlink()
    model.set_rt_info(info.to_json(), INFO_KEY)
    openvino.save_model(model, path, compress_to_fp16=False)
