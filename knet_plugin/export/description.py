"""What an exported model has to know of its config: reading the test pipeline."""

from __future__ import annotations

from typing import Any

from knet_plugin import __version__
from knet_plugin.datasets.config_parts import plain_datasets
from knet_plugin.export.graph import turns_to_rgb
from knet_plugin.inference.predictor import Predictor
from knet_plugin.migration.options import bare_type
from knet_plugin.runtime.model_info import EngineError, ModelInfo
from knet_plugin.visualization import PARTS

__all__ = ['describe']

_RESIZE_OPTIONS = {'type', '_scope_', 'scale', 'keep_ratio'}  # mmengine notes the scope of an inherited step
_NO_CHANGE = ('Annotation', 'Pack')  # in the names of steps that leave the image as it is


def describe(predictor: Predictor, size: tuple[int, int] | None, dynamic: bool, logits: bool) -> ModelInfo:
    """Describe the model that is exported.

    Args:
        predictor: The trained model.
        size: Height and width of a fixed input; None, those of ``Resize`` in the config.
        dynamic: Whether the input's size is free.
        logits: Whether the model returns logits.

    Raises:
        EngineError: The model or its test pipeline cannot be exported; the message says why.
    """
    model: Any = predictor.model
    if not (hasattr(model, 'encode_decode') or hasattr(getattr(model, 'panoptic_head', None), 'stages')):
        raise EngineError(f'{type(model).__name__} cannot be exported: only K-Net and the segmentors of mmseg can')
    resize, keep_ratio = _resize_step(predictor.cfg.test_dataloader)
    sliding = (getattr(model, 'test_cfg', None) or {}).get('mode') == 'slide'
    if sliding:
        raise EngineError("test_cfg.mode='slide' cuts images into windows, which cannot be exported: set "
                          "test_cfg.mode='whole', which segments the image at once and finds a little else")
    if (getattr(model.data_preprocessor, 'test_cfg', None) or {}).get('size'):
        raise EngineError(f'data_preprocessor.test_cfg={model.data_preprocessor.test_cfg} pads to a size: only '
                          'size_divisor is exported')
    if not dynamic and size is None:
        if resize is None:
            raise EngineError('the test pipeline has no Resize: give --size HEIGHT WIDTH, or --dynamic')
        size = resize[1], resize[0]
    return ModelInfo(
        version=__version__, parts=() if logits else _parts(model), outputs=(), classes=predictor.classes,
        num_things=predictor.num_things, palette=_colours(predictor.palette), score_thr=predictor.score_thr,
        resize=resize, keep_ratio=keep_ratio, size=None if dynamic else size,
        align_corners=bool(getattr(model, 'align_corners', False)), fill=_fill(model.data_preprocessor))


def _resize_step(loader: Any) -> tuple[tuple[int, int] | None, bool]:
    """Width and height of ``Resize``, and whether it keeps the ratio of the sides."""
    reading, *steps = plain_datasets(loader.dataset)[0].pipeline
    if reading.get('color_type', 'color') != 'color':
        raise EngineError(f'the test pipeline reads color_type={reading.color_type!r}: exported models take RGB images')
    found: tuple[tuple[int, int] | None, bool] = None, True
    for step in steps:
        name = bare_type(step['type'])
        if name == 'Resize' and found[0] is None and 'scale' in step and set(step) <= _RESIZE_OPTIONS:
            scale = step['scale'] if isinstance(step['scale'], tuple | list) else (step['scale'], step['scale'])
            found = (int(scale[0]), int(scale[1])), bool(step.get('keep_ratio', False))
        elif not any(word in name for word in _NO_CHANGE):
            raise EngineError(f'the test pipeline has {dict(step)}: only Resize with scale and keep_ratio is exported')
    return found


def _parts(model: Any) -> tuple[str, ...]:
    if hasattr(model, 'encode_decode'):
        return ('semantic',)
    chosen = model.panoptic_fusion_head.test_cfg
    switches = ('panoptic_on', 'instance_on', 'semantic_on')
    return tuple(part for part, switch in zip(PARTS, switches, strict=True) if chosen[switch])


def _colours(palette: Any) -> tuple[tuple[int, ...], ...] | None:
    return None if palette is None else tuple(tuple(int(value) for value in colour) for colour in palette)


def _fill(preprocessor: Any) -> tuple[int, ...]:
    """The colour that becomes zero, in RGB."""
    if not preprocessor._enable_normalize:
        return (0, 0, 0)
    mean = [round(value) for value in preprocessor.mean.flatten().tolist()]
    return tuple(mean if turns_to_rgb(preprocessor) else mean[::-1])
