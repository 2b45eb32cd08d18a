"""The exported computation of K-Net's detectors."""

from __future__ import annotations

import torch
from torch import Tensor

from knet_plugin.detection.fusion_head import KNetFusionHead, boxes_of, certainty, segment_values
from knet_plugin.detection.resized_masks import Sizes
from knet_plugin.export.graph import LogitsGraph, Resize, highest, in_groups
from knet_plugin.inference.optimize import raw_outputs

__all__ = ['DetectorGraph']


class DetectorGraph(LogitsGraph):
    """Adds the post-processing of ``KNetFusionHead``, for one image; see ``SemanticGraph`` for rows and columns."""

    def forward(self, image: Tensor, rows: Tensor, columns: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """Results of an image (1, h, w, 3) uint8 RGB at rows (H,) and columns (W,), which may lie between pixels.

        Returns:
            As far as the config switches them on: ``panoptic`` (H, W) int32, numbers of segments, 0 is void;
            ``segment_labels``, ``segment_scores`` and ``segment_kernels`` by number; ``semantic`` (H, W) int32;
            ``labels``, ``scores`` and ``kernels`` (n,), best first, ``boxes`` (n, 4) in pixels and ``masks`` (n, H, W)
            uint8.
        """
        inputs = self.preprocess(image)
        logits = raw_outputs(self.model, inputs)
        scores, masks = logits['class_logits'][0].sigmoid(), logits['mask_logits'][0].sigmoid()
        sizes = Sizes((inputs.shape[2], inputs.shape[3]), (image.shape[1], image.shape[2]),
                      (rows.shape[0], columns.shape[0]))
        return self._fused(scores, masks, sizes, Resize(masks, inputs, image, rows, columns))

    def _fused(self, scores: Tensor, masks: Tensor, sizes: Sizes, resize: Resize) -> dict[str, Tensor]:
        """Results from scores (N, classes) and probabilities (N, h, w)."""
        head: KNetFusionHead = self.model.panoptic_fusion_head
        chosen = head.test_cfg
        results: dict[str, Tensor] = {}
        binary: Tensor | None = None
        if chosen['panoptic_on'] or chosen['semantic_on']:
            kernel_scores, labels = head.candidates(scores)
            owner, (areas, *others) = highest(masks, resize, kernel_scores, self._area_and_mask)
            binary = others[0] if others else None
            if chosen['semantic_on']:
                results['semantic'] = labels[owner].int()
            if chosen['panoptic_on']:
                owned = torch.zeros_like(labels).scatter_add(0, owner.flatten(), torch.ones_like(owner.flatten()))
                numbers = head.number_segments(kernel_scores, owned, areas)
                results |= dict(panoptic=numbers[owner].int(), segment_labels=segment_values(numbers, labels),
                                segment_scores=segment_values(numbers, kernel_scores),
                                segment_kernels=segment_values(numbers, torch.arange(labels.shape[0])))
        if chosen['instance_on']:
            results |= self._instances(scores, masks, binary, sizes, resize)
        return results

    def _area_and_mask(self, large: Tensor) -> tuple[Tensor, ...]:
        """Areas (n,) of probabilities (n, H, W), and if there is instance segmentation, binary masks."""
        area = (large >= 0.5).float().sum(dim=(1, 2))  # to sum integers would take twice the memory
        instances = self.model.panoptic_fusion_head.test_cfg['instance_on']
        return (area, self._binary(large)) if instances else (area, )

    def _binary(self, large: Tensor) -> Tensor:
        return (large > self.model.panoptic_fusion_head.test_cfg['mask_thr']).to(torch.uint8)

    def _instances(self, scores: Tensor, masks: Tensor, binary: Tensor | None, sizes: Sizes,
                   resize: Resize) -> dict[str, Tensor]:
        """The best pairs of a kernel and a class; ``binary`` has the binary masks of all kernels if they are known."""
        head: KNetFusionHead = self.model.panoptic_fusion_head
        classes = head.num_things_classes
        things = scores[:scores.shape[0] - head.num_stuff_classes, :classes]
        if head.test_cfg['mask_scores']:
            things = things * certainty(masks[:things.shape[0]], head.test_cfg['mask_thr'], sizes)[:, None]
        best, pairs = things.flatten().topk(min(head.test_cfg['max_per_img'], things.numel()))
        kernels = pairs // classes
        if binary is None:
            _, (found, ) = in_groups(masks[kernels], resize, lambda large, _: ((), (self._binary(large), )))
        else:
            found = binary.index_select(0, kernels)
        return dict(labels=pairs % classes, scores=best, kernels=kernels, boxes=boxes_of(found), masks=found)
