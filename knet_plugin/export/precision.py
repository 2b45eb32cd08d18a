"""Smaller numbers in exported models: float16 for weights, 8-bit integers for convolutions."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from knet_plugin.runtime.model_info import EngineError

__all__ = ['halve_weights', 'quantize']

SMALL = 1024  # smaller parameters, such as those of norms, stay as they are
# Convolutions that stay float32. With integers in the first convolutions, nuclei lost 12 points of mask AP; in
# those that make the first kernels and masks, the shapes of the demo lost 2.6.
FLOAT_SHARE = 1 / 8  # of the convolutions, from the image on
PREDICTORS = ('init_kernels', 'conv_seg', 'conv_centre')


def halve_weights(file: Path) -> None:
    """Let an ONNX file store its large weights as float16; engines compute with float32."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(file)
    graph = model.graph
    for weight in [each for each in graph.initializer if each.data_type == onnx.TensorProto.FLOAT]:
        values = numpy_helper.to_array(weight)
        if values.size >= SMALL:
            graph.node.insert(0, onnx.helper.make_node('Cast', [f'{weight.name}.half'], [weight.name],
                                                       to=onnx.TensorProto.FLOAT))
            weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f'{weight.name}.half'))
    onnx.save(model, file)


def quantize(file: Path, inputs: Iterable[Mapping[str, np.ndarray]]) -> None:
    """Let the convolutions of an ONNX file compute with 8-bit integers, but for ``FLOAT_SHARE`` and ``PREDICTORS``.

    Weights have a scale for each channel.

    Args:
        file: The file.
        inputs: Inputs of the model, whose activations set the ranges of the integers.

    Raises:
        EngineError: onnx or onnxruntime is not installed.
    """
    try:
        import onnx
        from onnxruntime import quantization
    except ImportError as error:
        raise EngineError(f'exporting to int8 needs {error.name}: pip install "knet_plugin[export]"') from error

    model = onnx.load(file)
    for node in model.graph.node:  # onnxruntime's quantizer fails at empty lists, which are the default of a Scan
        for attribute in [each for each in node.attribute if each.type == onnx.AttributeProto.INTS and not each.ints]:
            node.attribute.remove(attribute)
    convolutions = [node for node in model.graph.node if node.op_type == 'Conv']
    kept = [*convolutions[:int(FLOAT_SHARE * len(convolutions))],
            *(node for node in convolutions if any(name in node.input[1] for name in PREDICTORS))]

    class Reader(quantization.CalibrationDataReader):
        remaining = iter(inputs)

        def get_next(self) -> Mapping[str, np.ndarray] | None:
            return next(self.remaining, None)

    with _quiet():  # it advises steps that have no effect here
        quantization.quantize_static(model, file, Reader(), per_channel=True, op_types_to_quantize=['Conv'],
                                     nodes_to_exclude=[node.name for node in kept],
                                     activation_type=quantization.QuantType.QUInt8,
                                     weight_type=quantization.QuantType.QInt8)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger().setLevel(level)
