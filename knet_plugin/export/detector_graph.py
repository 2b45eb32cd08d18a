"""The exported computation of K-Net's detectors."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from knet_plugin.detection.fusion_head import KNetFusionHead, boxes_of, certainty, segment_values
from knet_plugin.detection.resized_masks import Sizes
from knet_plugin.export.graph import GROUP, LogitsGraph, highest, sample
from knet_plugin.inference.optimize import raw_outputs

__all__ = ['DetectorGraph']


class DetectorGraph(LogitsGraph):
    """Adds the post-processing of ``KNetFusionHead``, for one image; see ``SemanticGraph`` for rows and columns."""

    def forward(self, image: Tensor, rows: Tensor, columns: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """Results of an image (1, h, w, 3) uint8 RGB at rows (H,) and columns (W,), which may lie between pixels.

        Returns:
            As far as the config switches them on: ``panoptic`` (H, W) int32, numbers of segments, 0 is void;
            ``segment_labels`` and ``segment_scores`` by number; ``semantic`` (H, W) int32; ``labels`` (n,) and
            ``scores`` (n,), best first, ``boxes`` (n, 4) in pixels and ``masks`` (n, H, W) uint8.
        """
        inputs = self.preprocess(image)
        logits = raw_outputs(self.model, inputs)
        scores, masks = logits['class_logits'][0].sigmoid(), logits['mask_logits'][0].sigmoid()
        sizes = Sizes((inputs.shape[2], inputs.shape[3]), (image.shape[1], image.shape[2]),
                      (rows.shape[0], columns.shape[0]))
        return self._fused(scores, masks, sizes, rows, columns)

    def _fused(self, scores: Tensor, masks: Tensor, sizes: Sizes, rows: Tensor, columns: Tensor) -> dict[str, Tensor]:
        """Results from scores (N, classes) and probabilities (N, h, w)."""
        head: KNetFusionHead = self.model.panoptic_fusion_head
        chosen = head.test_cfg
        results: dict[str, Tensor] = {}
        if chosen['panoptic_on'] or chosen['semantic_on']:
            kernel_scores, labels = head.candidates(scores)
            areas: list[Tensor] = []
            _, owner = highest(self._weighted(masks, kernel_scores, areas, sizes, rows, columns))
            if chosen['semantic_on']:
                results['semantic'] = labels[owner].int()
            if chosen['panoptic_on']:
                owned = torch.zeros_like(labels).scatter_add(0, owner.flatten(), torch.ones_like(owner.flatten()))
                numbers = head.number_segments(kernel_scores, owned, torch.cat(areas))
                results |= dict(panoptic=numbers[owner].int(), segment_labels=segment_values(numbers, labels),
                                segment_scores=segment_values(numbers, kernel_scores))
        if chosen['instance_on']:
            results |= self._instances(head, scores, masks, sizes, rows, columns)
        return results

    @staticmethod
    def _weighted(masks: Tensor, scores: Tensor, areas: list[Tensor], sizes: Sizes, rows: Tensor,
                  columns: Tensor) -> Iterator[Tensor]:
        """Yield some masks after the other at the result's size, times their scores, and append their areas."""
        for group, factors in zip(masks.split(GROUP), scores.split(GROUP), strict=True):
            group = _resized(group, sizes, rows, columns)
            areas.append((group >= 0.5).sum(dim=(1, 2)))
            yield group * factors[:, None, None]

    @staticmethod
    def _instances(head: KNetFusionHead, scores: Tensor, masks: Tensor, sizes: Sizes, rows: Tensor,
                   columns: Tensor) -> dict[str, Tensor]:
        classes, threshold = head.num_things_classes, head.test_cfg['mask_thr']
        things = scores[:scores.shape[0] - head.num_stuff_classes, :classes]
        masks = masks[:things.shape[0]]
        if head.test_cfg['mask_scores']:
            things = things * certainty(masks, threshold, sizes)[:, None]
        best, pairs = things.flatten().topk(min(head.test_cfg['max_per_img'], things.numel()))
        binary = torch.cat([(_resized(group, sizes, rows, columns) > threshold).to(torch.uint8)
                            for group in masks[pairs // classes].split(GROUP)])
        return dict(labels=pairs % classes, scores=best, boxes=boxes_of(binary), masks=binary)


def _resized(masks: Tensor, sizes: Sizes, rows: Tensor, columns: Tensor) -> Tensor:
    """(n, h, w) to (n, H, W)."""
    padded = F.interpolate(masks[None], sizes.padded, mode='bilinear', align_corners=False)[0]
    return sample(padded, sizes.image, rows, columns)
