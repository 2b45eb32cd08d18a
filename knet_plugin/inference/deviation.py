"""How far the outputs of an optimised model are from those of the plain model."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ['compare', 'largest_deviation', 'random_inputs', 'raw_outputs']


def largest_deviation(plain: nn.Module, optimized: nn.Module, inputs: Tensor | None = None) -> dict[str, float]:
    """Compare the outputs of a model in eval mode and its optimised copy before post-processing.

    Args:
        plain: A detector of mmdet or a segmentor of mmseg.
        optimized: The result of :func:`knet_plugin.optimize_for_inference`.
        inputs: Normalised images, (B, C, H, W). None: one image of noise.

    Returns:
        Largest difference of each output over its largest absolute value: ``seg_logits`` of a segmentor;
        ``class_logits`` and ``mask_logits`` of ``KNet``; ``feature0``, ``feature1`` ... of other detectors.
    """
    inputs = random_inputs(plain) if inputs is None else inputs
    return compare(raw_outputs(plain, inputs), raw_outputs(optimized, inputs))


def compare(expected: Mapping[str, Tensor], actual: Mapping[str, Tensor]) -> dict[str, float]:
    """Largest difference of each output over its largest absolute value."""
    return {name: ((actual[name] - value).abs().max() / value.abs().max().clamp(min=1e-12)).item()
            for name, value in expected.items()}


def random_inputs(model: nn.Module) -> Tensor:
    """One image of noise that the model accepts, (1, C, H, W), always the same."""
    channels = next((module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)), 3)
    test_cfg = getattr(model, 'test_cfg', None) or {}
    size = test_cfg['crop_size'] if test_cfg.get('mode') == 'slide' else (256, 256)
    noise = torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(0))
    return noise.to(next(model.parameters()).device)


@torch.no_grad()
def raw_outputs(model: Any, inputs: Tensor) -> dict[str, Tensor]:
    """Outputs before post-processing, see :func:`largest_deviation`."""
    # Models are told apart by their methods, because mmdet and mmseg need not both be installed.
    if hasattr(model, 'encode_decode'):
        size = tuple(inputs.shape[-2:])
        meta = dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size)
        return dict(seg_logits=model.encode_decode(inputs, [meta] * len(inputs)))
    features = model.extract_feat(inputs)
    if hasattr(getattr(model, 'panoptic_head', None), 'stages'):
        class_logits, mask_logits = model.panoptic_head.predict(features, [])
        return dict(class_logits=class_logits, mask_logits=mask_logits)
    return {f'feature{i}': feature for i, feature in enumerate(features)}
