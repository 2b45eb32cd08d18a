"""Where K-Net gets in: how each kind of decode head yields its features, kernels and first masks.

Almost every head sends its last feature through ``cls_seg``, which is all that K-Net needs to know of it. The table
here has the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from mmseg.models.decode_heads import DAHead, DDRHead, EncHead, PIDHead, SegmenterMaskTransformerHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

__all__ = ['PLAIN', 'SEAMS', 'Seam', 'classifier_of', 'exchange', 'seam_of']


@dataclass(frozen=True)
class Seam:
    """What is special about a decode head.

    Attributes:
        once: Of a head that trains on several outputs: the losses and metrics that do not read M, as patterns of their
            names. They are the same at every stage and count once; all others count at every stage.
        features: Of a head whose forward makes M without a classifier: the part of it whose output, (B, H x W, C), is
            F, at the positions of the masks. None: F is what ``cls_seg`` is given.
        kernels: Likewise the part, a linear layer, whose output, (B, N, C), is K_0. None: K_0 is the weight of
            ``conv_seg``.

    Raises:
        TypeError: If ``once`` is a single text.
    """

    once: tuple[str, ...] = ()
    features: str | None = None
    kernels: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.once, str):
            raise TypeError(f'once must be a tuple of patterns, got once={self.once!r}')

    def counts_once(self, loss: str) -> bool:
        """Whether a loss, or a metric, says nothing about M."""
        return any(fnmatchcase(loss, pattern) for pattern in self.once)


PLAIN = Seam()

SEAMS: dict[type[BaseDecodeHead], Seam] = {
    DAHead: Seam(once=('pam.*', 'cam.*')),
    DDRHead: Seam(once=('loss_spatial', )),
    EncHead: Seam(once=('loss_se', )),
    PIDHead: Seam(once=('loss_sem_p', 'loss_bd')),
    # Its masks are a layer norm of cosines, not the product of the two, and its kernels are another image's others.
    SegmenterMaskTransformerHead: Seam(features='patch_proj', kernels='classes_proj'),
}
"""Decode heads that are not plain. Another's is registered in one line: ``SEAMS[MyHead] = Seam(...)``."""


def seam_of(head: BaseDecodeHead) -> Seam:
    """The entry of a head's class, or of its nearest base class that has one; ``PLAIN`` where there is none."""
    return next((SEAMS[kind] for kind in type(head).__mro__ if kind in SEAMS), PLAIN)


def classifier_of(head: BaseDecodeHead) -> nn.Conv2d:
    """The linear classifier of a head, looked up at each use because users may replace it.

    Raises:
        TypeError: If the head has none; the message names it.
    """
    conv_seg = getattr(head, 'conv_seg', None)
    if not (isinstance(conv_seg, nn.Conv2d) and conv_seg.kernel_size == (1, 1) and conv_seg.groups == 1):
        raise TypeError(f'{type(head).__name__} has no linear classifier for K-Net to start from: conv_seg must be '
                        f'a 1 x 1 convolution, got conv_seg={conv_seg}')
    return conv_seg


def exchange(outputs: Any, old: Tensor, new: Tensor) -> tuple[Any, int]:
    """Copy nested tuples, lists and dicts with one tensor, known by identity, exchanged for another.

    Returns:
        The copy, and how often the tensor was found.
    """
    if outputs is old:
        return new, 1
    if isinstance(outputs, Mapping):
        values, found = exchange(list(outputs.values()), old, new)
        return dict(zip(outputs, values, strict=True)), found
    if isinstance(outputs, list | tuple):
        pairs = [exchange(value, old, new) for value in outputs]
        values, found = [value for value, _ in pairs], sum(found for _, found in pairs)
        return type(outputs)(*values) if hasattr(outputs, '_fields') else type(outputs)(values), found
    return outputs, 0
