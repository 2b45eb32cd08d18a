"""Post-processing: from class and mask logits to instances, a panoptic map and a semantic map."""

from typing import Any

import pycocotools.mask as mask_utils
import torch
from mmdet.evaluation.functional import INSTANCE_OFFSET
from mmdet.models.seg_heads.panoptic_fusion_heads import BasePanopticFusionHead
from mmdet.structures import SampleList
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from knet_plugin.detection.resized_masks import Sizes, assign_pixels, binarize, encode
from knet_plugin.registry import MODELS

__all__ = ['KNetFusionHead', 'boxes_of', 'certainty', 'segment_values']

# Outputs and thresholds of the published models.
TEST_CFG: dict[str, Any] = dict(panoptic_on=True, instance_on=True, semantic_on=False, max_per_img=100, mask_thr=0.5,
                                instance_score_thr=0.3, overlap_thr=0.6, max_mask_pixels=2 ** 29,
                                mask_scores=False)


@MODELS.register_module()
class KNetFusionHead(BasePanopticFusionHead):
    """Turn the last stage's logits into results.

    - Every pixel belongs to the kernel with the largest product of class score and mask probability.
    - The semantic map holds the class of each pixel's kernel.
    - In the panoptic map, a kernel's pixels are void if it scores below ``instance_score_thr``, unless it is the fixed
      kernel of a stuff class, or if it wins less than ``overlap_thr`` of its mask.
    - The instances are the ``max_per_img`` highest-scoring pairs of a kernel and a thing class, without a threshold on
      the score. The same mask may appear with several classes. Fixed stuff kernels take no part.
    - With ``mask_scores``, the score of an instance is multiplied by the mean probability of its mask's pixels, as in
      Mask2Former and SOLO (arXiv 1912.04488): a certain mask ranks above a doubtful one of the same class score.
    - NaN scores and NaN probabilities count as 0.
    - To bound the memory of large results, the masks of an image are run-length encodings if they would have more than
      ``max_mask_pixels`` pixels together. mmdet's COCO metrics and all of our own parts take both forms.

    Args:
        num_things_classes: Number T of thing classes, 0 .. T - 1.
        num_stuff_classes: Number S of stuff classes, T .. T + S - 1. Each of the last S kernels stands for one, and the
            others for things.
        test_cfg: Overrides of ``TEST_CFG``: ``panoptic_on``, ``instance_on`` and ``semantic_on`` select the outputs,
            ``mask_thr`` is the probability above which a pixel belongs to an instance; see above for the others.
    """

    def __init__(self, num_things_classes: int = 80, num_stuff_classes: int = 0, test_cfg: dict | None = None) -> None:
        super().__init__(num_things_classes, num_stuff_classes, {**TEST_CFG, **(test_cfg or {})})
        if unknown := sorted(self.test_cfg.keys() - TEST_CFG.keys()):
            raise ValueError(f'test_cfg has unknown keys {unknown}; known are {sorted(TEST_CFG)}')
        if self.test_cfg['semantic_on'] and not num_stuff_classes:
            raise ValueError('test_cfg.semantic_on=True needs stuff classes, got num_stuff_classes=0')

    def loss(self, **kwargs: Any) -> dict[str, Tensor]:
        """Return no losses: the head has no weights to train."""
        return {}

    @torch.no_grad()
    def predict(self, mask_cls_results: Tensor, mask_pred_results: Tensor, batch_data_samples: SampleList,
                rescale: bool = True, **kwargs: Any) -> list[dict[str, InstanceData | PixelData]]:
        """Post-process a batch.

        Args:
            mask_cls_results: Class logits, (B, N, classes).
            mask_pred_results: Mask logits of the padded images, (B, N, h, w).
            batch_data_samples: Data samples with ``batch_input_shape``, ``img_shape`` and ``ori_shape``.
            rescale: Whether results have the size ``ori_shape``; otherwise ``img_shape``.

        Returns:
            The selected outputs of each image: ``pan_results``, ``PixelData`` with ``sem_seg`` (1, H, W), which holds
            ``class + 1000 * segment``, or the number of classes where void; segments count from 1, and the lists
            ``segment_scores`` and ``segment_kernels`` have their scores and the indices of their kernels.
            ``ins_results``, ``InstanceData`` with ``bboxes`` (n, 4) in pixels (x1, y1, x2, y2), ``labels``,
            ``scores``, ``kernels`` (n,) and ``masks`` (n, H, W) or n encodings, best first.
            ``sem_results``, ``PixelData`` with classes as ``sem_seg`` (1, H, W).
        """
        results = []
        for class_logits, mask_logits, sample in zip(mask_cls_results, mask_pred_results, batch_data_samples,
                                                     strict=True):
            # Thresholds need float32: disable the autocast that runs the model.
            with torch.autocast(mask_logits.device.type, enabled=False):
                scores = class_logits.float().sigmoid().nan_to_num_(nan=0)
                masks = mask_logits.float().sigmoid().nan_to_num_(nan=0)
                image = sample.img_shape[:2]
                sizes = Sizes(sample.batch_input_shape, image, sample.ori_shape[:2] if rescale else image)
                results.append(self._post_process(scores, masks, sizes))
        return results

    def _post_process(self, scores: Tensor, masks: Tensor, sizes: Sizes) -> dict[str, InstanceData | PixelData]:
        """Results of one image from scores (N, classes) and probabilities (N, h, w)."""
        results: dict[str, InstanceData | PixelData] = {}
        if self.test_cfg['panoptic_on'] or self.test_cfg['semantic_on']:
            kernel_scores, labels = self.candidates(scores)
            owner, areas = assign_pixels(masks, kernel_scores, sizes)
            if self.test_cfg['semantic_on']:
                results['sem_results'] = PixelData(sem_seg=labels[owner][None])
            if self.test_cfg['panoptic_on']:
                results['pan_results'] = self._panoptic(kernel_scores, labels, owner, areas)
        if self.test_cfg['instance_on']:
            results['ins_results'] = self._instances(scores, masks, sizes)
        return results

    def candidates(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Score and class of each kernel: a fixed stuff kernel has its own class, another one its best remaining class.
        """
        num_kernels, first_fixed = (number - self.num_stuff_classes for number in scores.shape)
        best_scores, best_labels = scores[:num_kernels, :first_fixed].max(dim=1)
        stuff_scores = scores[num_kernels:, first_fixed:].diagonal()
        stuff_labels = torch.arange(first_fixed, self.num_classes, device=scores.device)
        return torch.cat([best_scores, stuff_scores]), torch.cat([best_labels, stuff_labels])

    def _panoptic(self, scores: Tensor, labels: Tensor, owner: Tensor, areas: Tensor) -> PixelData:
        """Keep the kernels that win most of their mask, and number their segments from 1 in the order of their scores.

        Overwrites ``owner``.
        """
        numbers = self.number_segments(scores, torch.bincount(owner.flatten(), minlength=len(scores)), areas)
        ids = torch.where(numbers > 0, labels + INSTANCE_OFFSET * numbers, self.num_classes)
        segments = slice(1, int(numbers.max()) + 1)
        info = dict(segment_scores=segment_values(numbers, scores)[segments].tolist(),
                    segment_kernels=segment_values(numbers, torch.arange(len(scores)).to(numbers))[segments].tolist())
        for rows in owner.split(256):  # a second map of a large image would double the memory
            rows.copy_(ids[rows])
        return PixelData(sem_seg=owner[None], metainfo=info)

    def number_segments(self, scores: Tensor, owned: Tensor, areas: Tensor) -> Tensor:
        """Number of each kernel's segment, (N,), from 1 in the order of their scores; 0 if its pixels are void.

        Args:
            scores: Score of each kernel, (N,).
            owned: Number of pixels that it wins, (N,).
            areas: Number of pixels of its mask, (N,).
        """
        index = torch.arange(len(scores), device=scores.device)
        kept = (index >= len(scores) - self.num_stuff_classes) | (scores >= self.test_cfg['instance_score_thr'])
        kept &= (owned > 0) & (areas > 0) & (owned / areas >= self.test_cfg['overlap_thr'])
        higher = scores > scores[:, None]  # column before row; the lower index in a tie
        rank = (higher | (scores == scores[:, None]) & (index < index[:, None])).sum(dim=1)
        return (kept & (rank <= rank[:, None])).sum(dim=1) * kept

    def _instances(self, scores: Tensor, masks: Tensor, sizes: Sizes) -> InstanceData:
        """The best pairs of a kernel that is not fixed to stuff and a thing class."""
        things = scores[:len(scores) - self.num_stuff_classes, :self.num_things_classes]
        if self.test_cfg['mask_scores']:
            things = things * certainty(masks[:len(things)], self.test_cfg['mask_thr'], sizes)[:, None]
        best, pairs = things.flatten().topk(min(self.test_cfg['max_per_img'], things.numel()))
        kernels, index = torch.unique(pairs // self.num_things_classes, return_inverse=True)
        found = dict(labels=pairs % self.num_things_classes, scores=best, kernels=kernels[index])
        threshold = self.test_cfg['mask_thr']
        if len(pairs) * sizes.result[0] * sizes.result[1] > self.test_cfg['max_mask_pixels']:
            encodings = encode(masks[kernels], threshold, sizes)
            corners = torch.as_tensor(mask_utils.toBbox(encodings), dtype=torch.float32, device=scores.device)
            corners[:, 2:] += corners[:, :2]
            return InstanceData(bboxes=corners[index], masks=[encodings[i] for i in index.tolist()], **found)
        binary = binarize(masks[kernels], threshold, sizes)
        boxes = boxes_of(binary.view(torch.uint8))
        return InstanceData(bboxes=boxes[index], masks=binary[index], **found)


def segment_values(numbers: Tensor, values: Tensor) -> Tensor:
    """Value of each segment, (N + 1,), by its number; what is at 0 means nothing.

    Args:
        numbers: Number of each kernel's segment, (N,), 0 if it has none.
        values: Value of each kernel, (N,).
    """
    return values.new_zeros(len(values) + 1).scatter(0, numbers, values)


def certainty(masks: Tensor, threshold: float, sizes: Sizes) -> Tensor:
    """Mean probability of the pixels of each mask (n, h, w) in the image, (n,); 0 for empty ones."""
    height, width = (max(1, side * image // padded) for side, image, padded in zip(
        masks.shape[1:], sizes.image, sizes.padded, strict=True))
    masks = masks[:, :height, :width]
    inside = masks > threshold
    return (masks * inside).sum(dim=(1, 2)) / inside.sum(dim=(1, 2)).clamp(min=1)


def boxes_of(masks: Tensor) -> Tensor:
    """Boxes (n, 4) of uint8 masks (n, H, W), zeros for empty ones: mmdet's ``mask2bbox`` without its slow loop."""
    limits = []
    for axis in (-2, -1):
        used = masks.amax(dim=axis).bool()  # (n, W), then (n, H); any() is slower on a CPU
        positions = torch.arange(used.shape[-1], device=masks.device)
        low = torch.where(used, positions, used.shape[-1]).amin(dim=-1)
        high = torch.where(used, positions + 1, 0).amax(dim=-1)
        limits.append((torch.minimum(low, high), high))
    (x1, x2), (y1, y2) = limits
    return torch.stack([x1, y1, x2, y2], dim=-1).float()
