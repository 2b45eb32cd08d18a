"""Exported models in their engines, against torch and against the time of their multiply-accumulates alone.

mmdet's Mask2Former and Mask R-CNN are no contenders, because ``torch.export`` takes neither: Mask2Former reads shapes
as tensors (``_shape_as_tensor``), and in Mask R-CNN values decide how many boxes there are.
"""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.logging import MMLogger
from torch.utils.flop_counter import FlopCounterMode

import knet_plugin
from cases.mode import OURS, Measured, Mode
from cases.models import build_model, read_config
from knet_plugin import Predictor, attach, optimize_for_inference, runtime
from knet_plugin.inference.optimize import raw_outputs

__all__ = ['LIMIT', 'MODE', 'Model', 'build']

TORCH, OPTIMIZED, ONNX, FLOAT = 'torch', 'torch, optimize_for_inference', 'onnxruntime', 'OpenVINO, float32'
LIMIT = 'multiply-accumulates alone'
FOLDER = Path('work_dirs/benchmark/engines')
MATRIX = 4096  # side of the matrices whose product shows what the processor can do


class Model(NamedTuple):
    """A model with random weights."""

    name: str  # of its folder
    config: str
    scope: str
    size: tuple[int, int]


PANOPTIC = Model('panoptic', 'knet-s3_r50_fpn_1x_coco-panoptic', 'mmdet', (800, 1216))
SEMANTIC = Model('semantic', 'mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py', 'mmseg', (512, 512))


def build(model: Model, contender: str, batch: int, device: torch.device) -> Measured:
    """One image to results, or a batch of images to logits; a contender is one of the above, or FILE.SUFFIX.

    Files are named after their precision, and written again when the package has changed.
    """
    images = [np.random.default_rng(i).integers(0, 256, (*model.size, 3), np.uint8) for i in range(batch)]
    if '.' in contender:
        path, threads = _exported(model, contender, batch > 1), torch.get_num_threads()
        if batch == 1:
            return Measured(partial(runtime.Predictor(path, threads=threads), images))
        return Measured(partial(runtime.open_engine(path, threads), dict(image=np.stack(images))))
    predictor = _predictor(model)
    normalised = torch.rand(batch, 3, *model.size)
    if contender == LIMIT:
        return _limit(predictor.model, normalised)
    if contender == OPTIMIZED:
        predictor.model = optimize_for_inference(predictor.model, inputs=normalised[:1])
    if batch > 1:
        return Measured(torch.no_grad()(lambda: raw_outputs(predictor.model, normalised)))
    return Measured(partial(predictor, images))


def _limit(model: Any, inputs: torch.Tensor) -> Measured:
    """A product of matrices with as many multiply-accumulates as the model."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        raw_outputs(model.requires_grad_(False), inputs)
    columns = round(counter.get_total_flops() / 2 / MATRIX**2)
    left, right = torch.rand(MATRIX, MATRIX), torch.rand(MATRIX, columns)
    return Measured(lambda: left @ right)


def _predictor(model: Model) -> Predictor:
    """The model, from a work folder that is made at the first call."""
    MMLogger.get_instance('benchmark', log_level='ERROR')
    folder = FOLDER / model.name
    if not (folder / 'random.pth').is_file():
        folder.mkdir(parents=True, exist_ok=True)
        cfg = read_config(model.config)
        cfg = attach(cfg) if model.scope == 'mmseg' else cfg
        weights = build_model(cfg, model.scope, torch.device('cpu')).state_dict()
        cfg.dump(folder / 'config.py')
        torch.save(dict(state_dict=weights), folder / 'random.pth')
    return Predictor(folder, device='cpu')


def _exported(model: Model, name: str, logits: bool) -> Path:
    from knet_plugin.export import export_model  # here, because the clone of --before may lack it

    sources = sorted(Path(knet_plugin.__file__).parent.rglob('*.py'))
    version = hashlib.sha256(b''.join(source.read_bytes() for source in sources)).hexdigest()[:12]
    path = FOLDER / model.name / version / f'{"logits-" if logits else ""}{name}'
    if not path.is_file():
        noise = [np.random.default_rng(i).integers(0, 256, (*model.size, 3), np.uint8) for i in range(4)]
        precision = path.stem.split('-')[-1]
        export_model(_predictor(model), path, model.size, logits=logits, precision=precision, images=noise)
    return path


def settings() -> dict[str, dict[str, Any]]:
    """Each model with one image and with four; in the settings of int8, OURS is OpenVINO with int8."""
    found: dict[str, dict[str, Any]] = {}
    for name, model in (('R-50, panoptic and instances, 800 x 1216', PANOPTIC), ('FCN + K-Net, 512 x 512', SEMANTIC)):
        for batch in (1, 4):
            setting = f'{name}, {"one image to results" if batch == 1 else "four images to logits"}'
            found[setting] = {OURS: partial(build, model, 'fp32.xml', batch),
                              ONNX: partial(build, model, 'fp32.onnx', batch),
                              **{each: partial(build, model, each, batch) for each in (TORCH, OPTIMIZED, LIMIT)}}
            found[f'{setting}, int8'] = {OURS: partial(build, model, 'int8.xml', batch),
                                         f'{ONNX}, int8': partial(build, model, 'int8.onnx', batch),
                                         FLOAT: partial(build, model, 'fp32.xml', batch)}
    return found


MODE = Mode(settings=settings(), turns=6, before=False, goals={LIMIT: dict(seconds=1.25), FLOAT: dict(seconds=0.6)})
