"""K-Net as its equations are written down, without any economy: what the benchmark compares the package with.

Everything here takes the package's own modules for their weights, and yields what they yield with the published
models' settings (and ``ignore_void=False``, as the official code has it); options are not looked at.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.evaluation.functional import INSTANCE_OFFSET
from torch import Tensor

from knet_plugin.core import HardMask, KernelUpdate, KernelUpdateHead
from knet_plugin.detection import KernelHead, KernelIterHead
from knet_plugin.detection.kernel_head import KernelProposals
from knet_plugin.detection.targets import Assignment, SegmentTargets, rank_target, semantic_target

__all__ = ['dense_losses', 'full_masks', 'instances', 'kernel_head', 'panoptic', 'update_stage']


def update_stage(stage: KernelUpdateHead, features: Tensor, kernels: Tensor, mask_logits: Tensor) -> KernelUpdate:
    """Eq. 2 for 1 x 1 or larger kernels; arguments and result are those of ``KernelUpdateHead``."""
    features = stage.feat_transform(features)
    hard = isinstance(stage.mask_activation, HardMask)
    masks = (mask_logits.sigmoid() > 0.5).to(features) if hard else mask_logits.softmax(dim=1)
    grouped = torch.einsum('bnhw,bchw->bnc', masks, features)  # Eq. 3
    taps = stage.interaction(stage.updater(grouped, kernels.flatten(3).transpose(2, 3)))  # Eq. 4, 5, 6
    mask_kernels = stage.fc_mask(stage.mask_fcs(taps)).transpose(2, 3).reshape(kernels.shape)
    logits = [F.conv2d(image[None], kernel, padding=stage.kernel_size // 2)
              for image, kernel in zip(features, mask_kernels, strict=True)]
    class_logits = None if stage.classifier is None else stage.classifier(taps)
    return KernelUpdate(taps.transpose(2, 3).reshape(kernels.shape), torch.cat(logits), class_logits)


def kernel_head(head: KernelHead, feats: Sequence[Tensor]) -> KernelProposals:
    """Localisation FPN and kernel head, module after module; arguments and result are those of ``KernelHead``."""
    fpn = head.localization_fpn
    levels = []
    for level, (feat, convs) in enumerate(zip(feats, fpn.convs_all_levels, strict=True)):
        if level == fpn.position_level and fpn.positional_encoding is not None:
            ignored = feat.new_zeros((len(feat), *feat.shape[-2:]), dtype=torch.bool)
            feat = feat + fpn.positional_encoding(ignored).to(feat)
        for i, conv in enumerate(convs, start=1):
            feat = conv(feat)
            target = feats[max(level - i, fpn.output_level)].shape[-2:]
            if feat.shape[-2:] != target:
                feat = F.interpolate(feat, target, mode='bilinear', align_corners=False)
        levels.append(feat)
    fused = levels[0] + levels[1] + levels[2] + levels[3]
    loc, seg = head.loc_convs(fpn.conv_pred(fused)), head.seg_convs(fpn.aux_convs[0](fused))
    features = loc + seg
    mask_logits, semantic_logits = head.init_kernels(loc), head.conv_seg(seg)
    objects = torch.einsum('bnhw,bchw->bnc', (mask_logits.sigmoid() > 0.5).to(features), features)
    kernels = head.init_kernels.weight[None] + objects[..., None, None]
    if head.num_stuff_classes:
        # 1 x 1 kernels, in the centre of larger ones.
        stuff = F.pad(head.conv_seg.weight[head.num_things_classes:], (head.kernel_size // 2, ) * 4)
        kernels = torch.cat([kernels, stuff[None].expand(len(loc), -1, -1, -1, -1)], dim=1)
        mask_logits = torch.cat([mask_logits, semantic_logits[:, head.num_things_classes:]], dim=1)
    return KernelProposals(features, kernels, mask_logits, semantic_logits)


def full_masks(mask_logits: Tensor, padded: tuple[int, int], image: tuple[int, int],
               result: tuple[int, int]) -> Tensor:
    """(N, h, w) logits to (N, H, W) probabilities: to the padded input, cut to the image, to the result."""
    masks = F.interpolate(mask_logits.sigmoid()[None], padded, mode='bilinear', align_corners=False)
    masks = masks[..., :image[0], :image[1]]
    return F.interpolate(masks, result, mode='bilinear', align_corners=False)[0]


def panoptic(scores: Tensor, labels: Tensor, masks: Tensor, num_things_classes: int, num_classes: int,
             instance_score_thr: float = 0.3, overlap_thr: float = 0.6) -> Tensor:
    """The official procedure, segment by segment.

    Args:
        scores: Score of every kernel, (N,).
        labels: Its class, (N,).
        masks: Probabilities, (N, H, W).
        num_things_classes: Classes that are things.
        num_classes: All classes; also the value of void.
        instance_score_thr: Lowest score of a thing.
        overlap_thr: Lowest share of its mask that a segment must win.

    Returns:
        ``class + 1000 * segment``, (H, W), segments from 1.
    """
    owner = (scores[:, None, None] * masks).argmax(dim=0)
    result = torch.full_like(owner, num_classes)
    segment = 1
    for k in scores.argsort(descending=True, stable=True).tolist():
        if int(labels[k]) < num_things_classes and float(scores[k]) < instance_score_thr:
            continue
        won = owner == k
        area, claimed = won.sum().item(), (masks[k] >= 0.5).sum().item()
        if area == 0 or claimed == 0 or area / claimed < overlap_thr:
            continue
        result[won] = labels[k] + INSTANCE_OFFSET * segment
        segment += 1
    return result


def instances(scores: Tensor, mask_logits: Tensor, sizes: Sequence[tuple[int, int]],
              max_per_img: int = 100) -> tuple[Tensor, Tensor, Tensor]:
    """The best pairs of a kernel and a class.

    Args:
        scores: (N, classes).
        mask_logits: (N, h, w).
        sizes: Padded input, image and result.
        max_per_img: Pairs.

    Returns:
        Scores (n,), labels (n,) and masks (n, H, W) of bool.
    """
    best, pairs = scores.flatten().topk(max_per_img)
    masks = full_masks(mask_logits, *sizes)[pairs // scores.shape[1]] > 0.5
    return best, pairs % scores.shape[1], masks


def dense_losses(head: KernelIterHead, proposals: KernelProposals, updates: Sequence[KernelUpdate],
                 targets: SegmentTargets) -> dict[str, Tensor]:
    """The losses of ``KNetCriterion`` on masks in full size, with a target and a weight for each pixel of each kernel;
    all maps are kept until the backward pass.
    """
    criterion, size = head.criterion, targets.masks.shape[-2:]
    upsampled = [F.interpolate(logits, size, mode='bilinear', align_corners=False) for logits in (
        proposals.mask_logits, *(update.mask_logits for update in updates))]
    semantic_logits = F.interpolate(proposals.semantic_logits, size, mode='bilinear', align_corners=False)
    objects, *stages = criterion.assign(
        proposals._replace(mask_logits=upsampled[0]),
        [update._replace(mask_logits=logits) for update, logits in zip(updates, upsampled[1:], strict=True)], targets)
    masks = upsampled[0][:, :head.kernel_head.num_kernels]
    losses = {f's0.{name}': value for name, value in _dense_masks(criterion, masks, objects, targets).items()}
    labels = semantic_target(objects, targets, criterion.num_classes, ignore_void=False).flatten()
    losses['s0.loss_seg'] = criterion.loss_seg(semantic_logits.permute(0, 2, 3, 1).reshape(len(labels), -1), labels,
                                               avg_factor=(labels < criterion.num_classes).sum().clamp(min=1))
    for i, (update, logits, assignment) in enumerate(zip(updates, upsampled[1:], stages, strict=True), start=1):
        num_pairs = torch.tensor(max(len(assignment.segments), 1))
        for name, value in (_dense_masks(criterion, logits, assignment, targets) | criterion.class_loss(
                update.class_logits, assignment, targets, num_pairs)).items():
            losses[f's{i}.{name}'] = value
    return losses


def _dense_masks(criterion: torch.nn.Module, logits: Tensor, assignment: Assignment,
                 targets: SegmentTargets) -> dict[str, Tensor]:
    dense = torch.zeros_like(logits)
    dense[assignment.images, assignment.kernels] = targets.masks[assignment.segments]
    positive = torch.zeros(logits.shape[:2], dtype=torch.bool, device=logits.device)
    positive[assignment.images, assignment.kernels] = True
    if not positive.any():
        return {name: logits.sum() * 0 for name in ('loss_mask', 'loss_dice', 'loss_rank')
                if name != 'loss_rank' or criterion.loss_rank is not None}
    losses = dict(loss_mask=criterion.loss_mask(logits[positive], dense[positive]),
                  loss_dice=criterion.loss_dice(logits[positive], dense[positive]))
    if criterion.loss_rank is not None:
        losses['loss_rank'] = criterion.loss_rank(logits, rank_target(assignment, targets), ignore_index=-100)
    return losses
