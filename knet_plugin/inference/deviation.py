"""How far the numbers of an optimised model are from those of the plain one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.structures import DetDataSample
from mmseg.models.segmentors import BaseSegmentor
from torch import Tensor, nn

from knet_plugin.detection.knet import KNet

__all__ = ['Deviation', 'check_model', 'compare', 'largest_deviation', 'random_inputs', 'raw_outputs']

_SIZE = 256  # of random images: every stride divides it


@dataclass(frozen=True)
class Deviation:
    """A deviation of one kind of output.

    Attributes:
        absolute: Largest deviation of a number.
        scale: Largest absolute value of the plain model, to judge it by.
    """

    absolute: float
    scale: float

    @property
    def relative(self) -> float:
        """Largest deviation over largest value; 0 where both are 0, infinite where only the latter is."""
        if not self.absolute:
            return 0.
        return self.absolute / self.scale if self.scale else float('inf')

    def __str__(self) -> str:
        return f'{self.absolute:.2g} of {self.scale:.3g}'


def largest_deviation(plain: nn.Module, optimized: nn.Module, inputs: Tensor | None = None) -> dict[str, Deviation]:
    """Run both models on the same images and compare what the read-out would see.

    Args:
        plain: A detector of mmdet or a segmentor of mmseg, in eval mode.
        optimized: What :func:`knet_plugin.optimize_for_inference` made of it.
        inputs: Normalised images, (B, C, H, W). None: one of 256 x 256 of normal noise, always the same.

    Returns:
        By kind of output: ``seg_logits`` of a segmentor, ``class_logits`` and ``mask_logits`` of a ``KNet``,
        ``feature<i>``, the pyramid levels, of any other detector.

    Raises:
        TypeError: If ``plain`` or ``optimized`` is neither a detector nor a segmentor.
        ValueError: If ``plain`` is in training mode, where its numbers depend on the batch.
    """
    check_model(plain)
    if plain.training:
        raise ValueError(f'plain must be in eval mode to be compared, got a {type(plain).__name__} in training mode: '
                         'call plain.eval()')
    if inputs is None:
        inputs = random_inputs(plain)
    return compare(raw_outputs(plain, inputs), raw_outputs(optimized, inputs))


def compare(expected: Mapping[str, Tensor], actual: Mapping[str, Tensor]) -> dict[str, Deviation]:
    """Largest deviations of ``actual`` from ``expected``, which have the same keys and shapes."""
    return {name: Deviation(_largest(actual[name] - value), _largest(value)) for name, value in expected.items()}


def _largest(values: Tensor) -> float:
    """Largest absolute value, without a copy: maps of logits are large."""
    low, high = values.aminmax()
    return torch.maximum(-low, high).item()


def random_inputs(model: nn.Module) -> Tensor:
    """One image of normal noise, (1, 3, 256, 256), on the model's device; the global random state stays."""
    noise = torch.randn(1, 3, _SIZE, _SIZE, generator=torch.Generator().manual_seed(0))
    return noise.to(next(model.parameters()).device)


@torch.no_grad()
def raw_outputs(model: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """What the read-out of a model would see, see :func:`largest_deviation`.

    Args:
        model: A detector or segmentor.
        inputs: Normalised images, (B, C, H, W).

    Raises:
        TypeError: If the model is neither a detector nor a segmentor.
    """
    size = tuple(inputs.shape[-2:])
    meta = dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size)
    check_model(model)
    if isinstance(model, BaseSegmentor):
        return dict(seg_logits=model.encode_decode(inputs, [meta] * len(inputs)))
    if isinstance(model, KNet):
        samples = [DetDataSample(metainfo=meta) for _ in inputs]
        class_logits, mask_logits = model.panoptic_head.predict(model.extract_feat(inputs), samples)
        return dict(class_logits=class_logits, mask_logits=mask_logits)
    return {f'feature{i}': level for i, level in enumerate(cast(BaseDetector, model).extract_feat(inputs))}


def check_model(model: nn.Module) -> None:
    """Raise a ``TypeError`` unless the model is a detector or segmentor."""
    if not isinstance(model, BaseDetector | BaseSegmentor):
        raise TypeError('model must be a detector of mmdet or a segmentor of mmseg, and none that is wrapped in '
                        f'another module, got {type(model).__name__}')
