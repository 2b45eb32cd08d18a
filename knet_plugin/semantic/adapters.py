"""How K-Net connects to each kind of decode head: where F, K_0 and M_0 come from, and which losses train a stage.

Almost every head of mmseg classifies through ``cls_seg`` and trains on the map that it returns. ``Adapter`` serves
all of these; ``ADAPTERS`` lists the heads that need another adapter, and those that K-Net does not support.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from mmseg.models import decode_heads
from mmseg.models.decode_heads.cascade_decode_head import BaseCascadeDecodeHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import accuracy
from mmseg.models.utils import resize
from mmseg.utils import add_prefix
from torch import Tensor, nn

__all__ = ['ADAPTERS', 'Adapter', 'Refused', 'SegmenterAdapter', 'adapter_of', 'classifier_of']

Refine = Callable[[Tensor, Tensor, Tensor], Tensor]


class Adapter:
    """Connects K-Net to a head that classifies through ``cls_seg`` and trains on a single map.

    F is the input of ``cls_seg`` before dropout, K_0 the weight of the 1 x 1 convolution ``conv_seg``, and M_0 the
    output. Derive from this class for a head that works in another way.
    """

    def channels(self, head: BaseDecodeHead) -> int:
        """C, the channels of F."""
        return classifier_of(head).in_channels

    def connect(self, head: BaseDecodeHead, refine: Refine) -> None:
        """Make the head return M_S instead of M_0.

        Replaced methods must be bound methods or partials, not closures, to survive deepcopy and pickle.

        Args:
            head: The stock head.
            refine: Computes M_S (B, N, H, W) from F (B, C, H, W), K_0 (B, N, C, 1, 1) and M_0 (B, N, H, W).
        """
        head.cls_seg = partial(self._cls_seg, head, refine)

    @staticmethod
    def _cls_seg(head: BaseDecodeHead, refine: Refine, feats: Tensor) -> Tensor:
        """Replaces ``cls_seg``. Dropout applies to M_0 only."""
        mask_logits = type(head).cls_seg(head, feats)
        kernels = classifier_of(head).weight.expand(feats.shape[0], -1, -1, -1, -1)
        return refine(feats, kernels, mask_logits)

    def stage_losses(self, head: BaseDecodeHead, logits: Tensor, outputs: Any, samples: list) -> dict[str, Tensor]:
        """Losses and metrics that depend on the mask logits, computed for each stage.

        Args:
            head: The stock head.
            logits: M_i of one stage, (B, N, H, W).
            outputs: What the head returned in training: M_S, or several outputs.
            samples: mmseg's data samples.
        """
        if not isinstance(outputs, Tensor):
            name = type(head).__name__
            raise TypeError(f'{name} trains on a {type(outputs).__name__}, not on a single map: register '
                            f'ADAPTERS[{name}], an Adapter with stage_losses and other_losses')
        return type(head).loss_by_feat(head, logits, samples)

    def other_losses(self, head: BaseDecodeHead, outputs: Any, samples: list) -> dict[str, Tensor]:
        """Losses and metrics that do not depend on the mask logits, computed once."""
        return {}


class DANetAdapter(Adapter):
    """DANet also trains on the maps of its position and channel attention."""

    def stage_losses(self, head: BaseDecodeHead, logits: Tensor, outputs: Any, samples: list) -> dict[str, Tensor]:
        """Losses of the sum of both attentions."""
        return add_prefix(BaseDecodeHead.loss_by_feat(head, logits, samples), 'pam_cam')

    def other_losses(self, head: BaseDecodeHead, outputs: Any, samples: list) -> dict[str, Tensor]:
        """Losses of each attention alone."""
        _, position, channel = outputs
        return {**add_prefix(BaseDecodeHead.loss_by_feat(head, position, samples), 'pam'),
                **add_prefix(BaseDecodeHead.loss_by_feat(head, channel, samples), 'cam')}


class EncNetAdapter(Adapter):
    """EncNet also predicts which classes occur in an image."""

    def stage_losses(self, head: BaseDecodeHead, logits: Tensor, outputs: Any, samples: list) -> dict[str, Tensor]:
        """Losses of the map."""
        return BaseDecodeHead.loss_by_feat(head, logits, samples)

    def other_losses(self, head: BaseDecodeHead, outputs: Any, samples: list) -> dict[str, Tensor]:
        """The semantic encoding loss."""
        if not head.use_se_loss:
            return {}
        classes = head._convert_to_onehot_labels(head._stack_batch_gt(samples), head.num_classes)
        return dict(loss_se=head.loss_se_decode(outputs[1], classes))


class DDRNetAdapter(Adapter):
    """DDRNet also trains on the map of its spatial branch."""

    def stage_losses(self, head: BaseDecodeHead, logits: Tensor, outputs: Any, samples: list) -> dict[str, Tensor]:
        """Losses of the context branch."""
        labels = head._stack_batch_gt(samples)
        logits, labels = _resize(head, logits, labels), labels.squeeze(1)
        return dict(loss_context=head.loss_decode[0](logits, labels),
                    acc_seg=accuracy(logits, labels, ignore_index=head.ignore_index))

    def other_losses(self, head: BaseDecodeHead, outputs: Any, samples: list) -> dict[str, Tensor]:
        """Loss of the spatial branch."""
        labels = head._stack_batch_gt(samples)
        return dict(loss_spatial=head.loss_decode[1](_resize(head, outputs[1], labels), labels.squeeze(1)))


class PIDNetAdapter(Adapter):
    """PIDNet also trains on the map of its detail branch (P) and on boundaries (D)."""

    def stage_losses(self, head: BaseDecodeHead, logits: Tensor, outputs: Any, samples: list) -> dict[str, Tensor]:
        """Losses of the context branch (I), everywhere and at the predicted boundaries."""
        labels, _ = head._stack_batch_gt(samples)
        logits, boundary = _resize(head, logits, labels), _resize(head, outputs[2], labels)
        labels = labels.squeeze(1)
        boundary_labels = torch.where(boundary[:, 0].sigmoid() > 0.8, labels, head.ignore_index)
        return dict(loss_sem_i=head.loss_decode[1](logits, labels),
                    loss_sem_bd=head.loss_decode[3](logits, boundary_labels),
                    acc_seg=accuracy(logits, labels, ignore_index=head.ignore_index))

    def other_losses(self, head: BaseDecodeHead, outputs: Any, samples: list) -> dict[str, Tensor]:
        """Losses of the detail branch and of the boundaries."""
        labels, edges = head._stack_batch_gt(samples)
        detail, boundary = _resize(head, outputs[0], labels), _resize(head, outputs[2], edges)
        return dict(loss_sem_p=head.loss_decode[0](detail, labels.squeeze(1), ignore_index=head.ignore_index),
                    loss_bd=head.loss_decode[2](boundary, edges.squeeze(1)))


class SegmenterAdapter(Adapter):
    """Segmenter has no classifier: its class embeddings are kernels, different for each image.

    F is the output of ``patch_proj``, K_0 that of ``classes_proj``. M_0 is a layer norm of their cosine similarities.
    """

    def channels(self, head: BaseDecodeHead) -> int:
        """C, the channels of F."""
        return head.classes_proj.out_features

    def connect(self, head: BaseDecodeHead, refine: Refine) -> None:
        """Refine what the head's forward returns. Hooks keep the outputs of both projections."""
        kept: dict[str, Tensor] = {}
        head.patch_proj.register_forward_hook(partial(self._keep, kept, 'patches'))
        head.classes_proj.register_forward_hook(partial(self._keep, kept, 'classes'))
        head.forward = partial(self._forward, head, refine, kept)

    @staticmethod
    def _keep(kept: dict[str, Tensor], name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        kept[name] = output

    @staticmethod
    def _forward(head: BaseDecodeHead, refine: Refine, kept: dict[str, Tensor], *inputs: Any) -> Tensor:
        """Replaces ``forward``."""
        mask_logits = type(head).forward(head, *inputs)
        patches, classes = kept.pop('patches'), kept.pop('classes')  # (B, H x W, C) and (B, N, C)
        feats = patches.transpose(1, 2).unflatten(2, mask_logits.shape[-2:])
        return refine(feats, classes[..., None, None], mask_logits)


@dataclass(frozen=True)
class Refused:
    """The reason why K-Net does not support a kind of decode head."""

    reason: str


_QUERIES = Refused('its masks come from learned queries that are matched to segments, not from one kernel for each '
                   'class; use knet_plugin.KNet, which does that with kernels')

ADAPTERS: dict[type, Adapter | Refused] = {
    decode_heads.DAHead: DANetAdapter(),
    decode_heads.EncHead: EncNetAdapter(),
    decode_heads.DDRHead: DDRNetAdapter(),
    decode_heads.PIDHead: PIDNetAdapter(),
    decode_heads.SegmenterMaskTransformerHead: SegmenterAdapter(),
    decode_heads.MaskFormerHead: _QUERIES,
    decode_heads.Mask2FormerHead: _QUERIES,
    decode_heads.PointHead: Refused('it sees sampled points only, not a feature map'),
    decode_heads.SideAdapterCLIPHead: Refused('its vocabulary is open: CLIP\'s text encoder makes the classes'),
    decode_heads.VPDDepthHead: Refused('it estimates depth and has no classes'),
}
"""Adapters by head class, valid for derived classes too. Register your own as ``ADAPTERS[MyHead] = MyAdapter()``."""


def adapter_of(kind: Any) -> Adapter | Refused:
    """The adapter of a head class: its own, that of the nearest base class, or a plain ``Adapter``."""
    base = next((base for base in kind.__mro__ if base in ADAPTERS), None)
    adapter = Adapter() if base is None else ADAPTERS[base]
    if isinstance(adapter, Refused):
        return adapter
    if not issubclass(kind, BaseDecodeHead):
        return Refused('it does not derive from mmseg\'s BaseDecodeHead')
    if kind.loss not in (BaseDecodeHead.loss, BaseCascadeDecodeHead.loss):
        return Refused('it overrides loss; override loss_by_feat instead')
    if base is not None and kind.loss_by_feat is not base.loss_by_feat:
        return Refused(f'it overrides loss_by_feat of {base.__name__}; register an adapter for it in ADAPTERS')
    return adapter


def classifier_of(head: BaseDecodeHead) -> nn.Conv2d:
    """The linear classifier ``conv_seg`` of a head, read at each use because users may replace it."""
    conv_seg = getattr(head, 'conv_seg', None)
    if not (isinstance(conv_seg, nn.Conv2d) and conv_seg.kernel_size == (1, 1) and conv_seg.groups == 1):
        raise TypeError(f'conv_seg of {type(head).__name__} must be a 1 x 1 convolution, got conv_seg={conv_seg}')
    return conv_seg


def _resize(head: BaseDecodeHead, maps: Tensor, labels: Tensor) -> Tensor:
    """Resize maps to the size of label maps as mmseg's losses do."""
    return resize(maps, size=labels.shape[2:], mode='bilinear', align_corners=head.align_corners)
