"""From a trained model to a file."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from knet_plugin.compat import release
from knet_plugin.export.description import describe
from knet_plugin.export.graph import LARGEST_STRIDE, LogitsGraph, SemanticGraph
from knet_plugin.export.writers import write_program
from knet_plugin.inference.predictor import Predictor
from knet_plugin.runtime.engines import open_engine
from knet_plugin.runtime.model_info import PRECISIONS, EngineError

__all__ = ['export_model', 'export_program']

OLDEST_TORCH = (2, 13)  # 2.11 refused free sizes of segmentors; its exporters were not tried with loops
_ANY_SIZE = (236, 300)  # of the example whose size is free: no multiple of a stride, which would count as a rule
_OTHER_SIZE = (200, 340)


def export_model(predictor: Predictor, path: str | Path, size: tuple[int, int] | None = None, dynamic: bool = False,
                 logits: bool = False, precision: str = 'fp32', images: Sequence[Any] = ()) -> dict[str, float]:
    """Export a trained model to a file, and compare both on images of noise.

    Args:
        predictor: The model, on the CPU. Its threshold for scores becomes that of the file.
        path: The file; its ending chooses the format: .onnx, .xml (OpenVINO) or .pt2 (torch.export). An existing file
            is replaced once the new one is complete.
        size: Height and width of a fixed input; by default those of ``Resize`` in the test pipeline.
        dynamic: Whether images of all sizes are allowed.
        logits: Whether the file returns logits of the padded image, and leaves the post-processing to its user.
        precision: 'fp32'; for .onnx and .xml also 'fp16' (of the weights) or 'int8' (of most convolutions).
        images: What the predictor takes, to find the ranges of 8-bit integers: some dozen images as in training.

    Returns:
        The largest deviation of each output from torch's, relative to its largest absolute value; of maps and masks,
        the share of pixels that differ. Only for fp32: others are to be judged on real images.

    Raises:
        EngineError: The model cannot be exported, or a package for it is missing; the message says what to do.
    """
    path = Path(path)
    _check_precision(precision, path, images)
    if release(torch.__version__) < OLDEST_TORCH:
        raise EngineError(f'exporting needs torch {".".join(map(str, OLDEST_TORCH))} or newer, and this is '
                          f'{torch.__version__}')
    info = replace(describe(predictor, size, dynamic, logits), precision=precision)
    graph = _graph_type(predictor.model, logits)(predictor.model).eval()
    if dynamic and graph.has_free_padding():
        raise EngineError(f'the convolutions of the backbone pad by the size of the image, and data_preprocessor pads '
                          f'it to a multiple of {graph.divisor}: set {LARGEST_STRIDE} there, or export with --size')
    example = _example(info.size or _ANY_SIZE, logits)
    try:
        inputs = [info.inputs(predictor.reader.picture(image)) for image in images]
    except ValueError as error:  # before the export, which takes long
        raise EngineError(f'an image for calibration is bad: {error}') from error
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix='.export-') as folder:
        draft = Path(folder, path.name)
        try:
            program = export_program(graph, example, dynamic)
            with torch.no_grad():
                outputs = tuple(graph(**example))
            write_program(program, draft, replace(info, outputs=outputs), inputs)
            deviations = _deviations(graph, draft, [example, *([_example(_OTHER_SIZE, logits)] if dynamic else [])])
            if precision == 'fp32':
                _refuse(deviations, dynamic)
        except (EngineError, OSError):
            raise
        except Exception as error:  # torch's exporters and the engines have many kinds
            reason = (str(error).strip().splitlines() or [''])[0]
            raise EngineError(f'{type(predictor.model).__name__} cannot be exported to {path.suffix}: '
                              f'{type(error).__name__}: {reason}') from error
        for file in sorted(Path(folder).iterdir(), key=lambda file: file.suffix == path.suffix):  # the weights first
            file.replace(path.parent / file.name)
    return deviations if precision == 'fp32' else {}


def _check_precision(precision: str, path: Path, images: Sequence[Any]) -> None:
    if precision not in PRECISIONS:
        raise EngineError(f'precision must be one of {", ".join(PRECISIONS)}, got {precision!r}')
    if precision != 'fp32' and path.suffix == '.pt2':
        raise EngineError(f'{path}: {precision} is for .onnx and .xml')
    if precision == 'int8' and not images:
        raise EngineError('int8 needs images for calibration')


def export_program(graph: LogitsGraph, example: dict[str, torch.Tensor], dynamic: bool) -> Any:
    """Trace a graph with ``torch.export``; return the ``ExportedProgram``.

    Args:
        graph: The graph, in eval mode.
        example: Its inputs.
        dynamic: Whether height and width of the image are free. The size of results always is, and of logits the
            number of images.
    """
    free = torch.export.Dim.DYNAMIC
    sides = {1: free, 2: free} if dynamic else {}
    if len(example) == 1:  # logits
        sides[0] = free
    shapes = {'image': sides, **{name: {0: free} for name in example if name != 'image'}}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        logging.getLogger('torch.export').setLevel(logging.ERROR)
        return torch.export.export(graph, (), example, dynamic_shapes=shapes, strict=False)


def _graph_type(model: Any, logits: bool) -> type[LogitsGraph]:
    if logits:
        return LogitsGraph
    if hasattr(model, 'encode_decode'):
        return SemanticGraph
    from knet_plugin.export.detector_graph import DetectorGraph  # here, because it needs mmdet

    return DetectorGraph


def _example(size: tuple[int, int], logits: bool) -> dict[str, torch.Tensor]:
    """An image of noise, or two where the model returns logits: torch would take the number 1 for fixed."""
    noise = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (1 + logits, *size, 3), dtype=torch.uint8, generator=noise)
    if logits:
        return dict(image=image)
    return dict(image=image, rows=torch.arange(size[0], dtype=torch.float32),
                columns=torch.arange(size[1], dtype=torch.float32))


def _deviations(graph: LogitsGraph, file: Path, examples: list[dict[str, torch.Tensor]]) -> dict[str, float]:
    """Largest deviation of each output, over the examples.

    Where the size is free, two sizes are tried: a size that became a constant while tracing is no error before.
    """
    engine = open_engine(file)
    found: dict[str, float] = {}
    for example in examples:
        with torch.no_grad():
            expected = graph(**example)
        actual = engine({name: value.numpy() for name, value in example.items()})
        for name, value in expected.items():
            if value.shape != actual[name].shape:
                raise EngineError(f'the exported model returns {name} of {actual[name].shape} instead of '
                                  f'{tuple(value.shape)}: a size became a constant; export with --size')
            found[name] = max(found.get(name, 0.), _deviation(value.numpy(), actual[name]))
    return found


def _refuse(deviations: dict[str, float], dynamic: bool) -> None:
    """Refuse a file whose logits differ by more than rounding; ties change results, but few of them."""
    hint = ': a size may have become a constant; export with --size' if dynamic else ''
    for name, limit in (('seg_logits', 1e-2), ('semantic', 0.05), ('class_logits', 1e-2)):
        if deviations.get(name, 0) > limit:
            raise EngineError(f'{name} of the exported model deviates from torch by {deviations[name]:.1g}{hint}')


def _deviation(expected: np.ndarray, found: np.ndarray) -> float:
    if not np.issubdtype(expected.dtype, np.floating):
        return float((expected != found).mean())
    return float(np.abs(expected - found).max() / max(np.abs(expected).max(), 1e-12))
