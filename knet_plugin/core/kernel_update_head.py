"""One update stage of K-Net (Eq. 2), the same for semantic, instance and panoptic segmentation."""

from typing import Any, NamedTuple

from mmengine.model import BaseModule
from torch import Tensor, nn

from knet_plugin.core.activation_checkpointing import checkpointed
from knet_plugin.core.feature_map import FeatureMap, resize
from knet_plugin.core.kernel_classifier import fc_norm_act
from knet_plugin.core.stage_config import build_part
from knet_plugin.registry import MODELS

__all__ = ['KernelUpdate', 'KernelUpdateHead']


class KernelUpdate(NamedTuple):
    """Output of a stage: ``K_i`` (B, N, C, K, K), ``M_i`` (B, N, H, W) and class logits (B, N, classes) or None."""

    kernels: Tensor
    mask_logits: Tensor
    class_logits: Any  # Tensor or None, which the caller knows

    def first(self, number: int) -> 'KernelUpdate':
        """The update of the first kernels alone."""
        classes = None if self.class_logits is None else self.class_logits[:, :number]
        return KernelUpdate(self.kernels[:, :number], self.mask_logits[:, :number], classes)


@MODELS.register_module()
class KernelUpdateHead(BaseModule):
    """Eq. 2 of the paper, ``K_i, M_i = f_i(M_{i-1}, K_{i-1}, F)``.

    The parts are given as configs, which need not repeat ``channels`` and the number of taps.

    Args:
        channels: Channels C of features and kernels.
        kernel_size: Odd side K of the kernels.
        mask_activation: Config of the mask weights of Eq. 3: ``SoftmaxMask`` (semantic; the default), ``HardMask``
            (instance and panoptic) or ``SigmoidMask``.
        updater: Config of the ``KernelUpdater`` (Eq. 4, 5). None: no adaptive update (Table 4a).
        interaction: Config of the ``KernelInteraction`` (Eq. 6). None: no interaction (Table 4a).
        classifier: Config of the ``KernelClassifier``. None: no class logits.
        feat_transform: Whether the stage transforms the features by its own 1 x 1 convolution with bias.
        mask_branch: From kernels to masks: ``num_fcs``, the FC-LN-ReLU blocks of ``g_i`` before its last FC (1 by
            default); ``stride``, in features, at which Eq. 1 is computed (1; 2 is an option of the official code);
            ``residual`` (False), whether the masks are ``M_{i-1} + g_i(K_i) * F``, where the last FC starts at zero:
            then a stage refines masks from the start instead of finding them anew.
        init_cfg: mmengine's initialisation config. None keeps PyTorch's defaults, with which the published semantic
            models were trained.
    """

    def __init__(self,
                 channels: int = 256,
                 kernel_size: int = 1,
                 mask_activation: dict | None = None,
                 updater: dict | None = dict(type='knet_plugin.KernelUpdater'),  # noqa: B006, never changed
                 interaction: dict | None = dict(type='knet_plugin.KernelInteraction'),  # noqa: B006
                 classifier: dict | None = None,
                 feat_transform: bool = True,
                 mask_branch: dict | None = None,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be odd and positive, got kernel_size={kernel_size}')
        self.channels = channels
        self.kernel_size = kernel_size
        widths = dict(channels=channels)
        self.mask_activation = MODELS.build(mask_activation or dict(type='knet_plugin.SoftmaxMask'))
        self.feat_transform = nn.Conv2d(channels, channels, 1) if feat_transform else None
        self.updater = build_part('updater', updater, widths)
        self.interaction = build_part('interaction', interaction, dict(widths, num_taps=kernel_size**2))
        self._build_mask_branch(**(mask_branch or {}))
        self.classifier = build_part('classifier', classifier, widths)

    def _build_mask_branch(self, num_fcs: int = 1, stride: int = 1, residual: bool = False) -> None:
        self.mask_fcs = fc_norm_act(self.channels, num_fcs)  # g_i, together with fc_mask
        self.fc_mask = nn.Linear(self.channels, self.channels)
        self.mask_stride = stride
        self.residual_masks = residual

    def init_weights(self) -> None:
        """Apply ``init_cfg``; the last FC of residual masks starts at zero."""
        super().init_weights()
        if self.residual_masks:
            nn.init.zeros_(self.fc_mask.weight)
            nn.init.zeros_(self.fc_mask.bias)

    def forward(self, features: Tensor, kernels: Tensor, mask_logits: Tensor, classify: bool = True,
                hidden: Tensor | None = None) -> KernelUpdate:
        """Compute ``K_i``, ``M_i`` and class logits.

        Args:
            features: ``F``, (B, C, H, W).
            kernels: ``K_{i-1}``, (B, N, C, K, K).
            mask_logits: ``M_{i-1}``, (B, N, h, w), resized to H x W.
            classify: Whether to compute the class logits.
            hidden: Which kernels the others do not see in Eq. 6, (B, N, N), see ``KernelInteraction``.
        """
        F = FeatureMap(features, self.feat_transform)
        K = kernels.flatten(3).transpose(2, 3)  # K_{i-1}: B, N, T, C
        if self.updater is not None:
            group = F.pool(mask_logits, self.mask_activation)  # Eq. 3, F^K: B, N, C
            K = checkpointed(self.updater, group, K)  # Eq. 4 and 5, K~: B, N, T, C
        if self.interaction is not None:
            K = self.interaction(K, hidden)  # Eq. 6, K_i: B, N, T, C
        M = F.convolve(self._to_kernels(self.fc_mask(self.mask_fcs(K))), self.mask_stride)  # Eq. 6 and 1: B, N, H, W
        if self.residual_masks:
            M = M + resize(mask_logits, M.shape[-2:])
        class_logits = self.classifier(K) if classify and self.classifier is not None else None  # B, N, classes
        return KernelUpdate(self._to_kernels(K), M, class_logits)

    def _to_kernels(self, taps: Tensor) -> Tensor:
        """(B, N, T, C) to (B, N, C, K, K)."""
        return taps.transpose(2, 3).unflatten(-1, (self.kernel_size, self.kernel_size))
