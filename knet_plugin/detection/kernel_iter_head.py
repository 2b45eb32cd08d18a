"""The head of K-Net's detector: kernel head, update stages, matching and deep supervision (Section 3.2)."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from mmdet.structures import SampleList
from mmengine.model import BaseModule, ModuleList
from mmengine.structures import InstanceData
from torch import Tensor

from knet_plugin.core import KernelUpdate
from knet_plugin.core.mask_ops import resize
from knet_plugin.core.activation_checkpointing import checkpointed, has_statistics
from knet_plugin.core.stage_config import stage_configs
from knet_plugin.detection.kernel_head import KernelProposals
from knet_plugin.detection.criterion import mean_owned
from knet_plugin.detection.targets import Assignment, SegmentTargets, segment_targets, assign_stuff
from knet_plugin.registry import MODELS, TASK_UTILS

__all__ = ['KernelIterHead']


@MODELS.register_module()
class KernelIterHead(BaseModule):
    """Instance and stuff kernels, refined S times by the pixels that they claim.

    ::

        F, K_0, M_0 = kernel_head(pyramid)
        K_i, M_i, class logits = kernel_update_head[i - 1](F, K_{i-1}, M_{i-1})     i = 1 .. S

    Every M_0 .. M_S is supervised, at ``mask_upsample`` times F's size. Objects are matched to instance kernels anew
    for every stage, by what the stage before it predicted: M_0 alone for the kernel head and stage 1, masks and classes
    of stage i - 1 for stage i. Stuff is never matched: every class has its kernel.

    It stands where mmdet's ``MaskFormer`` has its ``panoptic_head``.

    Args:
        num_things_classes: Classes whose objects are told apart.
        num_stuff_classes: Classes that own one kernel each; 0 for instance segmentation.
        num_stages: Update stages S.
        kernel_head: Config of the ``KernelHead``.
        kernel_update_head: What differs from the default of a stage, one config for all stages or a sequence of S.
        criterion: Config of the ``KNetCriterion``, which serves all stages and the kernel head.
        mask_upsample: Size of the masks of loss and result, in sizes of F.
        stage_loss_weights: Factors of the losses of stage 1 .. S. None: 1 each.
        with_cp: Whether kernel head and localisation FPN are computed once more in the backward pass, instead of being
            kept for it. Exact; they must not have batch norm.
        train_cfg: ``assigner``, the config of the ``MaskHungarianAssigner``; the default is the published one.
        test_cfg: Not read here, but by the fusion head.
        init_cfg: mmengine's initialisation config.

    Raises:
        ValueError: If ``num_stages`` is not positive, if configs or weights are not as many as stages, or if a part
            contradicts the number of classes.
    """

    def __init__(self,
                 num_things_classes: int = 80,
                 num_stuff_classes: int = 0,
                 num_stages: int = 3,
                 kernel_head: dict | None = None,
                 kernel_update_head: dict | Sequence[dict] | None = None,
                 criterion: dict | None = None,
                 mask_upsample: int = 2,
                 stage_loss_weights: Sequence[float] | None = None,
                 with_cp: bool = False,
                 train_cfg: dict | None = None,
                 test_cfg: dict | None = None,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.num_things_classes = num_things_classes
        self.num_stuff_classes = num_stuff_classes
        self.num_classes = num_things_classes + num_stuff_classes
        self.mask_upsample = mask_upsample
        if num_stages < 1:
            raise ValueError(f'num_stages must be positive (the stages classify), got num_stages={num_stages}')
        classes = dict(num_things_classes=num_things_classes, num_stuff_classes=num_stuff_classes)
        self.kernel_head = _build('kernel_head', 'knet_plugin.KernelHead', kernel_head, classes)
        self.with_cp = with_cp
        if with_cp and has_statistics(self.kernel_head):
            raise ValueError('with_cp=True computes the kernel head twice, and its batch norm would count every batch '
                             'twice: use another norm_cfg')
        self.criterion = _build('criterion', 'knet_plugin.KNetCriterion', criterion, classes)
        self.kernel_update_head = ModuleList(self._build_stages(kernel_update_head, num_stages))
        self.stage_loss_weights = [1.] * num_stages if stage_loss_weights is None else list(stage_loss_weights)
        if len(self.stage_loss_weights) != num_stages:
            raise ValueError(f'stage_loss_weights must hold one number for each of num_stages={num_stages} stages, got '
                             f'stage_loss_weights={stage_loss_weights}')
        self.assigner = TASK_UTILS.build(
            (train_cfg or {}).get('assigner') or dict(type='knet_plugin.MaskHungarianAssigner'))

    def _build_stages(self, given: dict | Sequence[dict] | None, num_stages: int) -> list[BaseModule]:
        fixed = dict(channels=self.kernel_head.channels, kernel_size=self.kernel_head.kernel_size)
        default = dict(fixed, type='knet_plugin.KernelUpdateHead', mask_activation=dict(type='knet_plugin.HardMask'),
                       updater=dict(type='knet_plugin.KernelUpdater'),
                       interaction=dict(type='knet_plugin.KernelInteraction'),
                       classifier=dict(type='knet_plugin.KernelClassifier', num_classes=self.num_classes))
        configs = stage_configs(given, num_stages, default, fixed, 'the kernel_head')
        for i, cfg in enumerate(configs):
            found = (cfg['classifier'] or {}).get('num_classes')
            if found != self.num_classes:
                raise ValueError(
                    f'kernel_update_head[{i}].classifier must have num_classes={self.num_classes} (num_things_classes='
                    f'{self.num_things_classes} + num_stuff_classes={self.num_stuff_classes}), got {cfg["classifier"]}')
        stages = [MODELS.build(cfg) for cfg in configs]
        for stage in stages:  # the official detectors' default, which any init_cfg comes after
            for parameter in stage.parameters():
                if parameter.dim() > 1:
                    torch.nn.init.xavier_uniform_(parameter)
        return stages

    @property
    def num_stages(self) -> int:
        """Update stages S."""
        return len(self.kernel_update_head)

    def stages(self, feats: Sequence[Tensor],
               last_only: bool = False) -> tuple[KernelProposals, list[KernelUpdate]]:
        """Eq. 2, S times.

        Args:
            feats: Pyramid levels, each (B, C, H_i, W_i).
            last_only: Whether only what the last stage says is going to be read. Then there are neither the semantic
                logits of the kernel head nor the class logits of the other stages.

        Returns:
            What the kernel head proposes, and what each stage makes of it: masks at F's size, H x W.
        """
        head = partial(self.kernel_head, semantics=not last_only)
        proposals = checkpointed(head, feats) if self.with_cp else head(feats)
        kernels, mask_logits = proposals.kernels, proposals.mask_logits
        updates: list[KernelUpdate] = []
        for i, stage in enumerate(self.kernel_update_head, start=1):
            read = not last_only or i == self.num_stages
            updates.append(stage(proposals.features, kernels, mask_logits, classify=read))
            kernels, mask_logits, _ = updates[-1]
        return proposals, updates

    def forward(self, feats: Sequence[Tensor],
                batch_data_samples: SampleList | None = None) -> tuple[list[Tensor], list[Tensor]]:
        """Class logits, S of (B, N, classes), and mask logits, S of (B, N, H, W), of all stages.

        Args:
            feats: Pyramid levels, each (B, C, H_i, W_i).
            batch_data_samples: Not read; mmdet's detectors give it.
        """
        _, updates = self.stages(feats)
        return [update.class_logits for update in updates], [update.mask_logits for update in updates]

    def loss(self, feats: Sequence[Tensor], batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of the kernel head under ``s0.``, of stage i under ``s<i>.``.

        Args:
            feats: Pyramid levels, each (B, C, H_i, W_i).
            batch_data_samples: mmdet's, with ``gt_instances`` and, where there is stuff, ``gt_sem_seg``.

        Returns:
            Always the same keys, whatever the images show.

        Raises:
            ValueError: If the ground truth lacks a field or has classes that the model does not have.
        """
        proposals, updates = self.stages(feats)
        height, width = (self.mask_upsample * side for side in proposals.features.shape[-2:])
        targets = segment_targets(batch_data_samples, (height, width), self.num_things_classes, self.num_stuff_classes)
        return self.loss_by_feat(proposals, updates, targets, [sample.metainfo for sample in batch_data_samples])

    def loss_by_feat(self, proposals: KernelProposals, updates: Sequence[KernelUpdate], targets: SegmentTargets,
                     batch_img_metas: Sequence[dict]) -> dict[str, Tensor]:
        """Losses of what the stages made; see ``loss``.

        Args:
            proposals: What the kernel head proposed.
            updates: What each stage made of it.
            targets: The segments of the batch, at ``mask_upsample`` times F's size.
            batch_img_metas: Their ``img_path`` is named in warnings.

        Returns:
            Losses by stage.
        """
        owned = self._owners(proposals, updates, targets, batch_img_metas)
        num_owned = mean_owned(owned)
        mask_logits = proposals.mask_logits[:, :self.kernel_head.num_kernels]
        losses = _named('s0', self.criterion.masks(mask_logits, owned[0], targets, num_owned[0]) |
                        self.criterion.semantics(proposals.semantic_logits, owned[0], targets))
        for i, (update, weight) in enumerate(zip(updates, self.stage_loss_weights, strict=False), start=1):
            losses |= _named(f's{i}', self.criterion.masks(update.mask_logits, owned[i], targets, num_owned[i]) |
                             self.criterion.classes(update.class_logits, owned[i], targets, num_owned[i]), weight)
        return losses

    def _owners(self, proposals: KernelProposals, updates: Sequence[KernelUpdate], targets: SegmentTargets,
                batch_img_metas: Sequence[dict]) -> list[Assignment]:
        """Which kernel owns which segment: in the kernel head, without stuff, and in each stage."""
        things = self.kernel_head.num_kernels
        stuff = assign_stuff(targets, self.num_things_classes, things)
        mask_logits = self._upsample(proposals.mask_logits[:, :things].detach())
        objects = self._match(mask_logits, None, targets, batch_img_metas, 'the kernel head')
        owned = [objects]
        for i, update in enumerate(updates, start=1):
            owned.append(objects + stuff)
            if i < self.num_stages:
                class_logits = update.class_logits[:, :things, :self.num_things_classes]
                objects = self._match(self._upsample(update.mask_logits[:, :things].detach()), class_logits, targets,
                                      batch_img_metas, f'stage {i}')
        return owned

    def predict(self, feats: Sequence[Tensor], batch_data_samples: SampleList) -> tuple[Tensor, Tensor]:
        """What the fusion head reads.

        Args:
            feats: Pyramid levels, each (B, C, H_i, W_i).
            batch_data_samples: Not read.

        Returns:
            The last stage's class logits, (B, N, classes), and mask logits, (B, N, h, w), upsampled.
        """
        _, updates = self.stages(feats, last_only=True)
        return updates[-1].class_logits, self._upsample(updates[-1].mask_logits)

    def _upsample(self, logits: Tensor) -> Tensor:
        """(B, N, H, W) to the size of loss and result."""
        height, width = logits.shape[-2:]
        return resize(logits, (self.mask_upsample * height, self.mask_upsample * width))

    @torch.no_grad()
    def _match(self, mask_logits: Tensor, class_logits: Tensor | None, targets: SegmentTargets,
               batch_img_metas: Sequence[dict], stage: str) -> Assignment:
        """Match instance kernels and objects by what ``stage`` predicted."""
        predictions, truths = [], []
        for image, masks in enumerate(mask_logits):
            scores = {} if class_logits is None else dict(scores=class_logits[image].float())
            predictions.append(InstanceData(masks=masks, **scores))
            rows = targets.objects_of(image)
            truths.append(InstanceData(masks=targets.masks[rows], labels=targets.labels[rows]))
        results = self.assigner.assign_batch(predictions, truths, batch_img_metas, stage)
        gt_inds = torch.stack([result.gt_inds for result in results])  # B, N: 0, or 1 + the image's object
        images, kernels = gt_inds.nonzero(as_tuple=True)
        first = torch.tensor([targets.objects_of(image).start for image in range(len(results))], device=images.device)
        return Assignment(images, kernels, first[images] + gt_inds[images, kernels] - 1)


def _build(name: str, default_type: str, cfg: dict | None, classes: dict[str, int]) -> Any:
    """Build a part with the head's classes, which its config may repeat but not contradict."""
    cfg = dict(cfg or {})
    for key, number in classes.items():
        if cfg.get(key, number) != number:
            raise ValueError(f'{name} says {key}={cfg[key]}, but the KernelIterHead has {key}={number}')
    return MODELS.build(dict(type=default_type) | cfg | classes)


def _named(stage: str, losses: dict[str, Tensor], weight: float = 1.) -> dict[str, Tensor]:
    """Put the stage before the names, and its weight on what is a loss."""
    return {f'{stage}.{name}': value * weight if 'loss' in name else value for name, value in losses.items()}
