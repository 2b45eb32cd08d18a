"""The head of K-Net's detector: kernel head and update stages (Section 3.2)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.structures import SampleList
from mmengine.model import BaseModule, ModuleList
from torch import Tensor

from knet_plugin.core import KernelUpdate, SoftmaxMask
from knet_plugin.core.activation_checkpointing import checkpointed, has_statistics
from knet_plugin.core.feature_map import resize
from knet_plugin.core.stage_config import build_part, stage_configs
from knet_plugin.detection.kernel_head import KernelProposals
from knet_plugin.detection.targets import segment_targets
from knet_plugin.registry import MODELS

__all__ = ['KernelIterHead']


@MODELS.register_module()
class KernelIterHead(BaseModule):
    """Proposes kernels and refines them and their masks in S stages.

    ::

        F, K_0, M_0 = kernel_head(pyramid)
        K_i, M_i, class logits = kernel_update_head[i - 1](F, K_{i-1}, M_{i-1})     i = 1 .. S      Eq. 2

    All masks M_0 .. M_S are supervised, at ``mask_upsample`` times F's size; see ``KNetCriterion``. The head takes the
    place of ``panoptic_head`` in mmdet's ``MaskFormer``.

    Args:
        num_things_classes: Classes with instances.
        num_stuff_classes: Classes with one segment each; 0 for instance segmentation.
        num_stages: Update stages S.
        kernel_head: Config of the ``KernelHead``.
        kernel_update_head: What differs from the default stage, one config for all stages or a sequence of S.
        criterion: Config of the ``KNetCriterion``.
        mask_upsample: Size of the masks of loss and prediction, as a multiple of F's.
        with_cp: Whether to save memory by activation checkpointing of the kernel head, which must have no batch norm.
        train_cfg: ``pilots``, what differs from the default ``MaskPilots``; None, no pilots. The rest is the
            criterion's.
        test_cfg: Part of mmdet's interface; the fusion head reads it.
    """

    def __init__(self,
                 num_things_classes: int = 80,
                 num_stuff_classes: int = 0,
                 num_stages: int = 3,
                 kernel_head: dict | None = None,
                 kernel_update_head: dict | Sequence[dict] | None = None,
                 criterion: dict | None = None,
                 mask_upsample: int = 2,
                 with_cp: bool = False,
                 train_cfg: dict | None = None,
                 test_cfg: dict | None = None) -> None:
        super().__init__()
        if num_stages < 1:
            raise ValueError(f'num_stages must be positive (the stages classify), got num_stages={num_stages}')
        self.num_things_classes = num_things_classes
        self.num_stuff_classes = num_stuff_classes
        self.num_classes = num_things_classes + num_stuff_classes
        self.num_stages = num_stages
        self.mask_upsample = mask_upsample
        self.with_cp = with_cp
        train_cfg = dict(train_cfg or {})
        pilots = train_cfg.pop('pilots', None)
        classes = dict(num_things_classes=num_things_classes, num_stuff_classes=num_stuff_classes)
        self.kernel_head = build_part('kernel_head', dict(type='knet_plugin.KernelHead') | (kernel_head or {}), classes)
        if with_cp and has_statistics(self.kernel_head):
            raise ValueError('with_cp=True would update the statistics of a batch norm twice: use another norm_cfg')
        self.kernel_update_head = ModuleList(self._build_stages(kernel_update_head, num_stages))
        self.criterion = build_part(
            'criterion', dict(type='knet_plugin.KNetCriterion', train_cfg=train_cfg) | (criterion or {}), classes)
        weights = self.criterion.stage_loss_weights
        if weights is not None and len(weights) != num_stages:
            raise ValueError(f'stage_loss_weights must hold num_stages={num_stages} numbers, got {weights}')
        self.pilots = None if pilots is None else self._build_pilots(pilots)

    def _build_stages(self, given: dict | Sequence[dict] | None, num_stages: int) -> list[BaseModule]:
        fixed = dict(channels=self.kernel_head.channels, kernel_size=self.kernel_head.kernel_size)
        default = dict(fixed, type='knet_plugin.KernelUpdateHead', mask_activation=dict(type='knet_plugin.HardMask'),
                       updater=dict(type='knet_plugin.KernelUpdater'),
                       interaction=dict(type='knet_plugin.KernelInteraction'),
                       classifier=dict(type='knet_plugin.KernelClassifier', num_classes=self.num_classes))
        configs = stage_configs(given, num_stages, default, fixed, 'the kernel_head')
        for i, cfg in enumerate(configs):
            if (cfg['classifier'] or {}).get('num_classes') != self.num_classes:
                raise ValueError(f'kernel_update_head[{i}].classifier must have num_classes={self.num_classes}, things '
                                 f'and stuff together, got {cfg["classifier"]}')
        stages = [MODELS.build(cfg) for cfg in configs]
        for stage in stages:  # the official detectors' default; an init_cfg of a part overrides it
            for parameter in stage.parameters():
                if parameter.dim() > 1:
                    torch.nn.init.xavier_uniform_(parameter)
        return stages

    def _build_pilots(self, given: dict) -> torch.nn.Module:
        if any(isinstance(stage.mask_activation, SoftmaxMask) for stage in self.kernel_update_head):
            raise ValueError('pilots need a mask_activation that takes each mask alone, got SoftmaxMask: they would '
                             'change the masks of the ordinary kernels')
        fixed = dict(num_things_classes=self.kernel_head.num_things_classes, channels=self.kernel_head.channels)
        return build_part('pilots', dict(type='knet_plugin.MaskPilots') | given, fixed)

    def stages(self, feats: Sequence[Tensor], last_only: bool = False) -> tuple[KernelProposals, list[KernelUpdate]]:
        """Outputs of the kernel head and of each stage, with masks of F's size.

        Args:
            feats: Pyramid levels, each (B, C, H_i, W_i).
            last_only: Whether to leave out what only the loss reads: class logits of all stages but the last, and
                semantic logits without stuff kernels.
        """
        proposals = self.propose(feats, semantic=not last_only)
        return proposals, self.refine(proposals, last_only)

    def propose(self, feats: Sequence[Tensor], semantic: bool = True) -> KernelProposals:
        """Outputs of the kernel head; ``semantic``: with semantic logits, even without stuff kernels."""
        if self.with_cp:  # in two parts, because only one of them is recomputed at a time
            loc, seg = checkpointed(self.kernel_head.localization_fpn, feats)
            return checkpointed(self.kernel_head.propose, loc, seg, semantic)
        return self.kernel_head(feats, semantic)

    def refine(self, proposals: KernelProposals, last_only: bool = False,
               hidden: Tensor | None = None) -> list[KernelUpdate]:
        """Outputs of each stage (Eq. 2); for ``hidden`` see ``KernelInteraction``."""
        kernels, mask_logits = proposals.kernels, proposals.mask_logits  # K_0, M_0
        updates: list[KernelUpdate] = []
        for i, stage in enumerate(self.kernel_update_head, start=1):
            classify = not last_only or i == self.num_stages
            update = stage(proposals.features, kernels, mask_logits, classify=classify, hidden=hidden)
            kernels, mask_logits, class_logits = update  # K_i, M_i
            if class_logits is not None and (prior := proposals.class_logits) is not None:
                # Stuff classes come last; stuff kernels, and then pilots, after the instance kernels.
                padding = [0, self.kernel_head.num_stuff_classes, 0, class_logits.shape[1] - prior.shape[1]]
                update = update._replace(class_logits=class_logits + F.pad(prior, padding))
            updates.append(update)
        return updates

    def forward(self, feats: Sequence[Tensor],
                batch_data_samples: SampleList | None = None) -> tuple[list[Tensor], list[Tensor]]:
        """Class logits, S of (B, N, classes), and mask logits, S of (B, N, H, W)."""
        _, updates = self.stages(feats)
        return [update.class_logits for update in updates], [update.mask_logits for update in updates]

    def loss(self, feats: Sequence[Tensor], batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses, see ``KNetCriterion``, of pyramid levels and ground truth, see ``segment_targets``."""
        proposals = self.propose(feats)
        targets = segment_targets(batch_data_samples, self._mask_size(proposals.mask_logits), self.num_things_classes,
                                  self.num_stuff_classes)
        if self.pilots is None:
            losses = self.criterion(proposals, self.refine(proposals), targets)
        else:
            piloted = self.pilots(proposals, targets, self.kernel_head.add_group_features)
            updates = self.refine(piloted.proposals, hidden=piloted.hidden)
            losses = self.criterion(proposals, updates, targets, piloted.assignment)
        if proposals.centre_logits is not None:
            losses['s0.loss_centre'] = self.kernel_head.centre_loss(proposals.centre_logits, targets)
        return losses

    def predict(self, feats: Sequence[Tensor], batch_data_samples: SampleList) -> tuple[Tensor, Tensor]:
        """The last stage's class logits, (B, N, classes), and upsampled mask logits, (B, N, h, w)."""
        _, updates = self.stages(feats, last_only=True)
        mask_logits = updates[-1].mask_logits
        return updates[-1].class_logits, resize(mask_logits, self._mask_size(mask_logits))

    def _mask_size(self, mask_logits: Tensor) -> tuple[int, int]:
        """Size of the masks of loss and prediction."""
        height, width = mask_logits.shape[-2:]
        return self.mask_upsample * height, self.mask_upsample * width
