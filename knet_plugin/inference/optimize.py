"""Preparing a trained model for inference: a function, and a hook that tests with it."""

import copy
import logging
from collections.abc import Mapping
from types import MethodType
from typing import Any

import torch
from mmcv.cnn import fuse_conv_bn
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from knet_plugin.inference.acceleration import accelerate, model_parts
from knet_plugin.registry import HOOKS

__all__ = ['OptimizeForInferenceHook', 'largest_deviation', 'optimize_for_inference', 'raw_outputs']

_DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16)
_ROUNDING = 1e-3  # the largest relative deviation that reordered float32 sums explain


def optimize_for_inference(model: nn.Module, dtype: str | torch.dtype = torch.float32,
                           compile: bool | Mapping[str, Any] = False, channels_last: bool = True,
                           inputs: Tensor | None = None) -> nn.Module:
    """Make a faster copy of a trained model, and log how far its outputs deviate from the model's.

    Batch norms are fused with the convolutions before them, if that keeps the outputs. Maps and convolution weights are
    stored with channels last. With a 16-bit ``dtype``, backbone, neck and head run under autocast; computations on
    kernels alone, logits and post-processing stay in float32. The heads of other detectors are left alone and get
    features in float32.

    Args:
        model: A detector of mmdet or a segmentor of mmseg, with its weights loaded, on its device. It is not changed.
        dtype: float32, bfloat16 or float16 of torch, or its name.
        compile: Whether to use ``torch.compile``, or its options, such as ``dict(mode='reduce-overhead')``. torch may
            compile again for images of another size.
        channels_last: Whether to store channels last.
        inputs: Normalised images, (B, C, H, W), on which the deviation is measured. None: one image of noise.

    Returns:
        The copy, in eval mode. It refuses to train and to load weights, because its batch norms are gone.
    """
    autocast = _DTYPES.get(str(dtype).removeprefix('torch.'))
    if autocast is None:
        raise ValueError(f'dtype must be one of {", ".join(_DTYPES)}, got dtype={dtype!r}')
    device = next(model.parameters()).device
    inputs = _random_inputs(model) if inputs is None else inputs.to(device)
    optimized = copy.deepcopy(model).eval()
    with torch.autocast(device.type, enabled=False):  # the caller's autocast would also round the plain outputs
        expected = raw_outputs(optimized, inputs)
        fused = _fused(optimized, inputs, expected)
        optimized = (fused or optimized).requires_grad_(False)
        accelerate(optimized, autocast, compile, channels_last)
        deviations = largest_deviation(expected, raw_outputs(optimized, inputs))
    optimized.train = MethodType(_refuse_training, optimized)  # type: ignore[method-assign]
    optimized._register_load_state_dict_pre_hook(_refuse_weights)
    suspicious = autocast == torch.float32 and not _only_rounds(deviations)
    found = ', '.join(f'{name} {value:.2g}' for name, value in deviations.items())
    print_log(f'{type(model).__name__} optimised for inference: dtype={autocast}, compile={compile}, '
              f'channels_last={channels_last}, batch norms {"fused" if fused else "kept"}. '
              f'Largest relative deviation: {found}'
              f'{", more than float32 rounds" if suspicious else ""}', logger='current',
              level=logging.WARNING if suspicious else logging.INFO)
    return optimized


@torch.no_grad()
def raw_outputs(model: Any, inputs: Tensor) -> dict[str, Tensor]:
    """Return the outputs of a model in eval mode before post-processing, for normalised images (B, C, H, W).

    They are ``seg_logits`` of a segmentor; ``class_logits`` and ``mask_logits`` of ``KNet``; ``feature0``, ``feature1``
    ... of other detectors.
    """
    # Models are told apart by their methods, because mmdet and mmseg need not both be installed.
    if hasattr(model, 'encode_decode'):
        size = tuple(inputs.shape[-2:])
        meta = dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size)
        return dict(seg_logits=model.encode_decode(inputs, [meta]))  # mmseg reads the sizes of the first only
    features = model.extract_feat(inputs)
    if hasattr(getattr(model, 'panoptic_head', None), 'stages'):
        class_logits, mask_logits = model.panoptic_head.predict(features, [])
        return dict(class_logits=class_logits, mask_logits=mask_logits)
    return {f'feature{i}': feature for i, feature in enumerate(features)}


def largest_deviation(expected: Mapping[str, Tensor], actual: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the largest difference of each output over its largest absolute value."""
    return {name: ((actual[name] - value).abs().max() / value.abs().max().clamp(min=1e-12)).item()
            for name, value in expected.items()}


def _fused(model: nn.Module, inputs: Tensor, expected: Mapping[str, Tensor]) -> nn.Module | None:
    """Return a copy with fused batch norms; None if they cannot be fused, or only with other outputs.

    mmcv pairs modules in the order of their construction. That is wrong for ConvModules that normalise first, as in
    PIDNet and DDRNet, and for convolutions with several norms.
    """
    fused = copy.deepcopy(model)
    try:
        for part, _, _ in model_parts(fused):
            fuse_conv_bn(part)
        return fused if _only_rounds(largest_deviation(expected, raw_outputs(fused, inputs))) else None
    except (RuntimeError, TypeError):  # channels differ, or a norm has no statistics
        return None


def _only_rounds(deviations: Mapping[str, float]) -> bool:
    return all(value <= _ROUNDING for value in deviations.values())  # NaN is no rounding


def _random_inputs(model: nn.Module) -> Tensor:
    """Return one image of noise that the model accepts, (1, C, H, W), always the same."""
    channels = next((module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)), 3)
    test_cfg = getattr(model, 'test_cfg', None) or {}
    size = test_cfg['crop_size'] if test_cfg.get('mode') == 'slide' else (256, 256)
    noise = torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(0))
    return noise.to(next(model.parameters()).device)


def _refuse_training(model: nn.Module, mode: bool = True) -> nn.Module:
    """Replacement of ``train``, which ``eval`` calls, too."""
    if mode:
        raise RuntimeError(f'this {type(model).__name__} is optimised for inference: train the plain model instead')
    return type(model).train(model, False)


def _refuse_weights(*args: Any) -> None:
    raise RuntimeError('this model is optimised for inference: load weights into the plain model and optimise it again')


@HOOKS.register_module()
class OptimizeForInferenceHook(Hook):
    """Run tests with ``knet_plugin.optimize_for_inference``; training and validation run the plain model.

    The hook optimises the model before the test epoch and restores the plain model after it, also inside
    ``MMDistributedDataParallel`` or a model for test-time augmentation. Its options are the function's.
    """

    priority = 'VERY_LOW'  # after EMAHook, which swaps in the averaged weights at the same event

    def __init__(self, dtype: str = 'float32', compile: bool | dict = False, channels_last: bool = True) -> None:
        self.options: dict[str, Any] = dict(dtype=dtype, compile=compile, channels_last=channels_last)

    def before_test_epoch(self, runner: Runner) -> None:
        """Let the model's ``test_step`` run an optimised copy."""
        model = _inner_model(runner.model)
        model.test_step = optimize_for_inference(model, **self.options).test_step

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Restore the model's own ``test_step``."""
        del _inner_model(runner.model).test_step


def _inner_model(model: Any) -> Any:
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
