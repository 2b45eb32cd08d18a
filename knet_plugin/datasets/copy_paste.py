"""Copy-paste augmentation that also changes the semantic map."""

import random
from typing import Any

import numpy as np
from mmdet.datasets.transforms import CopyPaste as StockCopyPaste

from knet_plugin.registry import TRANSFORMS

__all__ = ['CopyPaste']


@TRANSFORMS.register_module()
class CopyPaste(StockCopyPaste):
    """mmdet's ``CopyPaste`` (arXiv 2012.07177), for panoptic data too.

    It pastes objects of another image over this one. mmdet's leaves ``gt_seg_map`` as it was, so stuff under a pasted
    object would stay stuff; and it draws one index too many, which ends a training on few images with an
    ``IndexError``. The arguments are mmdet's. Both images must have the same size: ``Pad`` comes before.
    """

    def get_indexes(self, dataset: Any) -> int:
        """Draw the image whose objects are pasted."""
        return random.randrange(len(dataset))

    def _copy_paste(self, dst_results: dict, src_results: dict) -> dict:
        """Paste the objects of ``src_results``; ``gt_seg_map``, (H, W), gets their classes."""
        pasted = src_results['gt_masks'].masks.any(axis=0)  # H, W
        results = super()._copy_paste(dst_results, src_results)
        if 'gt_seg_map' in results and len(src_results['gt_bboxes']):
            results['gt_seg_map'] = np.where(pasted, src_results['gt_seg_map'], results['gt_seg_map'])
        return results
