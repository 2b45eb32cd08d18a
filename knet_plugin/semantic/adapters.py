"""Where K-Net gets in: how each kind of decode head yields its features, kernels and first masks.

Almost every head sends its last feature through ``cls_seg``, which is all that K-Net needs to know of it. The table
here has the others, and those that K-Net does not go on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from mmseg.models import decode_heads
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

__all__ = ['ADAPTERS', 'Refused', 'Adapter', 'SegmenterAdapter', 'classifier_of', 'exchange', 'adapter_of']

Refine = Callable[[Tensor, Tensor, Tensor], Tensor]


class Adapter:
    """How K-Net gets into a decode head: here, into one whose last feature goes through ``cls_seg``.

    F is what enters there, before dropout; K_0 the weight of ``conv_seg``, a 1 x 1 convolution; M_0 what leaves. A head
    that is made otherwise has a subclass with its own ``channels`` and ``enter``. Every K-Net has a copy of its own.

    Args:
        once: Of a head that trains on several outputs: the losses and metrics that do not read M, as patterns of their
            names. They are the same at every stage and count once; all others count at every stage. None: nobody has
            said, so such a head is refused.

    Raises:
        TypeError: If ``once`` is a single text.
    """

    def __init__(self, once: tuple[str, ...] | None = ()) -> None:
        if isinstance(once, str):
            raise TypeError(f'once must be a tuple of patterns, got once={once!r}')
        self.once = once

    def counts_once(self, loss: str) -> bool:
        """Whether a loss, or a metric, says nothing about M."""
        return any(fnmatchcase(loss, pattern) for pattern in self.once or ())

    def channels(self, head: BaseDecodeHead) -> int:
        """C, the width of F.

        Raises:
            TypeError: If the head has no linear classifier.
        """
        return classifier_of(head).in_channels

    def enter(self, head: BaseDecodeHead, refine: Refine) -> None:
        """Put ``refine`` between M_0 and what the head makes of it.

        What is put on the head must be bound methods, not closures: they survive deepcopy, pickle and torch.compile.
        The head must train on the very tensor that ``refine`` returns, which is how it is found among other outputs.

        Args:
            head: The stock head.
            refine: M_S, (B, N, H, W), from F (B, C, H, W), K_0 (B, N, C, 1, 1) and M_0 (B, N, H, W).
        """
        self._head, self._refine = head, refine
        head.cls_seg = self._cls_seg

    def _cls_seg(self, feats: Tensor) -> Tensor:
        """In the stock ``cls_seg``'s place. Dropout falls on M_0 alone, where the stock head applies it."""
        head = self._head
        mask_logits = type(head).cls_seg(head, feats)  # M_0
        kernels = classifier_of(head).weight.expand(feats.shape[0], -1, -1, -1, -1)  # K_0: B, N, C, 1, 1
        return self._refine(feats, kernels, mask_logits)


class SegmenterAdapter(Adapter):
    """Into Segmenter, which has no classifier: its class embeddings are kernels, of each image its own.

    F is what ``patch_proj`` says of the patches, K_0 what ``classes_proj`` says of the classes. M_0 are its own masks,
    which are a layer norm of cosines, not the product of the two.
    """

    def channels(self, head: BaseDecodeHead) -> int:
        """C, the width of F."""
        return head.classes_proj.out_features

    def enter(self, head: BaseDecodeHead, refine: Refine) -> None:
        """Put ``refine`` behind the head's forward, and listen to the two parts."""
        self._head, self._refine = head, refine
        self._kept: dict[nn.Module, Tensor] | None = None  # a dict while the head's forward runs
        head.forward = self._forward
        for part in (head.patch_proj, head.classes_proj):
            part.register_forward_hook(self._keep)

    def _forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """In the place of the stock forward."""
        head = self._head
        kept = self._kept = {}
        try:
            mask_logits = type(head).forward(head, *args, **kwargs)  # M_0
            if len(kept) < 2:
                raise RuntimeError(f'{type(head).__name__} did not call its patch_proj and classes_proj, or they were '
                                   'replaced after K-Net was built on them')
            patches, classes = kept[head.patch_proj], kept[head.classes_proj]  # B, H x W, C and B, N, C
        finally:
            self._kept = None
        return self._refine(patches.transpose(1, 2).unflatten(2, mask_logits.shape[-2:]), classes[..., None, None],
                            mask_logits)

    def _keep(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        """Forward hook of the two parts."""
        if self._kept is not None:
            self._kept[module] = output


@dataclass(frozen=True)
class Refused:
    """A kind of decode head that K-Net does not go on.

    Attributes:
        reason: Why.
    """

    reason: str


_QUERIES = Refused('its masks are of learned queries, not of classes, and are matched to segments; KNet, the detector '
                   'of this package, does that with kernels')

ADAPTERS: dict[type, Adapter | Refused] = {
    decode_heads.DAHead: Adapter(once=('pam.*', 'cam.*')),
    decode_heads.DDRHead: Adapter(once=('loss_spatial', )),
    decode_heads.EncHead: Adapter(once=('loss_se', )),
    decode_heads.PIDHead: Adapter(once=('loss_sem_p', 'loss_bd')),
    decode_heads.SegmenterMaskTransformerHead: SegmenterAdapter(),
    decode_heads.MaskFormerHead: _QUERIES,
    decode_heads.Mask2FormerHead: _QUERIES,
    decode_heads.PointHead: Refused('it sees sampled points only, from which kernels could gather nothing'),
    decode_heads.SideAdapterCLIPHead: Refused('its vocabulary is open: classes come from CLIP\'s text encoder, not '
                                              'from kernels'),
    decode_heads.VPDDepthHead: Refused('it estimates depth, and has no classes'),
}
"""Decode heads that are not plain. Another's is registered in one line: ``ADAPTERS[MyHead] = Adapter(...)``."""


def adapter_of(kind: type) -> Adapter | Refused:
    """The entry of a head's class, or of its nearest base class that has one; a plain ``Adapter`` where there is none."""
    return next((ADAPTERS[base] for base in kind.__mro__ if base in ADAPTERS), Adapter(once=None))


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
