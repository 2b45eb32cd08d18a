"""Read-outs: from scored masks to instances, a panoptic map and a semantic map, in one pass."""

from typing import Any

import torch
from mmdet.evaluation.functional import INSTANCE_OFFSET
from mmdet.models.seg_heads.panoptic_fusion_heads import BasePanopticFusionHead
from mmdet.structures import SampleList
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from knet_plugin.detection.resized_masks import ResizedMasks, above, owners
from knet_plugin.registry import MODELS

__all__ = ['KNetFusionHead']

TEST_CFG: dict[str, Any] = dict(panoptic_on=True, instance_on=True, semantic_on=False, max_per_img=100, mask_thr=0.5,
                                instance_score_thr=0.3, overlap_thr=0.6)
"""Read-outs and thresholds of the published models."""


@MODELS.register_module()
class KNetFusionHead(BasePanopticFusionHead):
    """Turns the last stage's logits into results. It has no weights.

    A thing kernel stands for its best thing class, a stuff kernel for its own. Every pixel belongs to the kernel with
    the largest product of score and mask probability. The semantic map is the class of that kernel. In the panoptic map
    a segment is left out, and its pixels become void, if it is a thing of a score below ``instance_score_thr``, or if
    what it won is less than ``overlap_thr`` of what it claimed. Instances are the ``max_per_img`` best pairs of a thing
    kernel and a thing class, however low their scores; one mask may appear with several classes. A score that is not a
    number counts as 0, and a pixel whose probability is not a number belongs to no mask.

    Args:
        num_things_classes: Classes 0 .. T - 1.
        num_stuff_classes: Classes T .. T + S - 1; the last S kernels are theirs.
        test_cfg: ``panoptic_on``, ``instance_on``, ``semantic_on``: what to read out. ``max_per_img``: instances.
            ``mask_thr``: probability above which a pixel belongs to an instance. ``instance_score_thr`` and
            ``overlap_thr``: see above. Unset ones keep the published value; only the semantic map is off.
        init_cfg: mmengine's initialisation config.

    Raises:
        ValueError: If ``test_cfg`` has an unknown key, or asks for a semantic map of a model without stuff.
    """

    def __init__(self, num_things_classes: int = 80, num_stuff_classes: int = 0, test_cfg: dict | None = None,
                 init_cfg: dict | None = None) -> None:
        super().__init__(num_things_classes, num_stuff_classes, {**TEST_CFG, **(test_cfg or {})}, init_cfg=init_cfg)
        if unknown := sorted(self.test_cfg.keys() - TEST_CFG.keys()):
            raise ValueError(f'test_cfg has unknown keys {unknown}; known are {sorted(TEST_CFG)}')
        if self.test_cfg['semantic_on'] and not num_stuff_classes:
            raise ValueError('test_cfg.semantic_on=True needs stuff classes, got num_stuff_classes=0: every pixel '
                             'would be called a thing')

    def loss(self, **kwargs: Any) -> dict[str, Tensor]:
        """There is nothing to train here."""
        return {}

    @torch.no_grad()
    def predict(self, mask_cls_results: Tensor, mask_pred_results: Tensor, batch_data_samples: SampleList,
                rescale: bool = True, **kwargs: Any) -> list[dict[str, InstanceData | PixelData]]:
        """Read out a batch.

        Args:
            mask_cls_results: Class logits, (B, N, classes).
            mask_pred_results: Mask logits, (B, N, h, w), of the padded images.
            batch_data_samples: mmdet's; their ``batch_input_shape``, ``img_shape`` and ``ori_shape`` are read.
            rescale: Whether results have ``ori_shape``; otherwise ``img_shape``.
            **kwargs: Not read.

        Returns:
            For every image, as far as switched on: ``pan_results``, ``PixelData`` with ``sem_seg`` (1, H, W) of
            ``class + 1000 * segment``, segments from 1, void being the number of classes; ``ins_results``,
            ``InstanceData`` with ``bboxes`` (n, 4) in pixels (x1, y1, x2, y2), ``labels``, ``scores`` (n,) and
            ``masks`` (n, H, W), best first; ``sem_results``, ``PixelData`` with ``sem_seg`` (1, H, W) of classes.
        """
        results = []
        for class_logits, mask_logits, sample in zip(mask_cls_results, mask_pred_results, batch_data_samples,
                                                     strict=True):
            # Also under autocast: what is compared with a threshold must not be rounded to 8 or 11 bits.
            with torch.autocast(mask_logits.device.type, enabled=False):
                # NaN would win every comparison of scores, and turn up in files of results.
                scores = class_logits.float().sigmoid().nan_to_num(nan=0)
                results.append(self._read_out(scores, mask_logits.float().sigmoid(),
                                              _sizes(sample.metainfo, rescale)))
        return results

    def _read_out(self, scores: Tensor, probabilities: Tensor,
                  sizes: tuple[tuple[int, int], ...]) -> dict[str, InstanceData | PixelData]:
        """All results of one image from (N, classes) scores and (N, h, w) masks."""
        result: dict[str, InstanceData | PixelData] = {}
        if self.test_cfg['panoptic_on'] or self.test_cfg['semantic_on']:
            kernel_scores, labels = self._candidates(scores)
            valued = (labels >= self.num_things_classes) | (kernel_scores >= self.test_cfg['instance_score_thr'])
            owner, claimed = owners(ResizedMasks(probabilities, *sizes), kernel_scores, valued)
            if self.test_cfg['panoptic_on']:
                result['pan_results'] = self._panoptic(kernel_scores, labels, valued, owner, claimed)
            if self.test_cfg['semantic_on']:
                result['sem_results'] = PixelData(sem_seg=labels[owner][None])
        if self.test_cfg['instance_on']:
            result['ins_results'] = self._instances(scores, probabilities, sizes)
        return result

    def _candidates(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Score and class of every kernel: (N, classes) to (N,) and (N,)."""
        num_kernels = len(scores) - self.num_stuff_classes
        thing_scores, thing_labels = scores[:num_kernels, :self.num_things_classes].max(dim=1)
        stuff_scores = scores[num_kernels:, self.num_things_classes:].diagonal()
        stuff_labels = torch.arange(self.num_things_classes, self.num_classes, device=scores.device)
        return torch.cat([thing_scores, stuff_scores]), torch.cat([thing_labels, stuff_labels])

    def _panoptic(self, scores: Tensor, labels: Tensor, valued: Tensor, owner: Tensor, claimed: Tensor) -> PixelData:
        """Keep the segments that hold most of what they claim; number them by falling score, from 1.

        (Not from 0: segment 0 of class 0 would be 0, which is void to ``CocoPanopticMetric``.)
        """
        won = torch.bincount(owner.flatten(), minlength=len(scores))
        kept = valued & (won > 0) & (claimed > 0) & (won / claimed >= self.test_cfg['overlap_thr'])
        order = scores.argsort(descending=True, stable=True)
        number = torch.empty_like(order)
        number[order] = kept[order].cumsum(dim=0)
        ids = torch.where(kept, labels + INSTANCE_OFFSET * number, self.num_classes)  # of every kernel
        return PixelData(sem_seg=ids[owner][None])

    def _instances(self, scores: Tensor, probabilities: Tensor, sizes: tuple[tuple[int, int], ...]) -> InstanceData:
        """The best pairs of an instance kernel and a thing class."""
        things = scores[:len(scores) - self.num_stuff_classes, :self.num_things_classes]
        best, pairs = things.flatten().topk(min(self.test_cfg['max_per_img'], things.numel()))
        kernels, places = torch.unique(pairs // self.num_things_classes, return_inverse=True)
        masks = above(ResizedMasks(probabilities[kernels], *sizes), self.test_cfg['mask_thr'])
        return InstanceData(bboxes=_boxes(masks)[places], labels=pairs % self.num_things_classes, scores=best,
                            masks=masks[places])


def _sizes(img_meta: dict, rescale: bool) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Height and width of the padded input, of the image in it, and of the result."""
    image = img_meta['img_shape'][:2]
    return img_meta['batch_input_shape'], image, img_meta['ori_shape'][:2] if rescale else image


def _boxes(masks: Tensor) -> Tensor:
    """Tight boxes (x1, y1, x2, y2) around (n, H, W) masks, in pixels, x2 and y2 exclusive; zeros around empty ones.

    The same as mmdet's ``mask2bbox``, which loops over the masks and waits for the device at each.
    """
    boxes = []
    for axis in (-2, -1):
        used = masks.view(torch.uint8).amax(dim=axis).bool()  # n, W and then n, H; any() is slower on bytes
        positions = torch.arange(used.shape[-1], device=masks.device)
        low = torch.where(used, positions, used.shape[-1]).amin(dim=-1)
        high = torch.where(used, positions + 1, 0).amax(dim=-1)
        boxes.append((torch.minimum(low, high), high))
    (x1, x2), (y1, y2) = boxes
    return torch.stack([x1, y1, x2, y2], dim=-1).float()
