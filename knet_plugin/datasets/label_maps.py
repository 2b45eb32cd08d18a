"""Label maps of 8 or 16 bits."""

from typing import Any

import mmcv
import numpy as np
from mmengine.fileio import get
from mmseg.datasets.transforms import LoadAnnotations as StockLoadAnnotations

from knet_plugin.registry import TRANSFORMS

__all__ = ['LoadLabels']

_VOID = 65535  # unlabelled in files of 16 bits, whatever ignore_index is


@TRANSFORMS.register_module()
class LoadLabels(StockLoadAnnotations):
    """mmseg's ``LoadAnnotations``, which also reads label maps of 16 bits; mmseg cuts them to 8.

    Args:
        reduce_zero_label: See mmseg: 0 is unlabelled, and 1 is the first class.
        ignore_index: Value of unlabelled pixels in the file and in the result; 65535 in the file is unlabelled, too.
            Above 255 classes, set it to 65535, also in the decode head, as ``seg_pad_val`` of the data preprocessor
            and as ``ignore_index`` of the metric.
        options: ``backend_args`` and ``imdecode_backend`` of mmseg's.
    """

    def __init__(self, reduce_zero_label: bool | None = None, ignore_index: int = 255, **options: Any) -> None:
        super().__init__(reduce_zero_label, **options)
        self.ignore_index = ignore_index

    def _load_seg_map(self, results: dict) -> None:
        """Add ``gt_seg_map``, (H, W), of 8 or, where ``ignore_index`` needs it, 16 bits.

        Raises:
            ValueError: The file cannot be decoded, has several channels, or a label above ``ignore_index``.
        """
        path = results['seg_map_path']
        labels = self._read(path)
        reduce = results['reduce_zero_label'] if self.reduce_zero_label is None else self.reduce_zero_label
        if reduce != results['reduce_zero_label']:
            raise ValueError(f'reduce_zero_label is {reduce} in LoadLabels, but {results["reduce_zero_label"]} in the '
                             'data set')
        ignored = (labels == self.ignore_index) | (labels == _VOID)
        if reduce:
            ignored |= labels == 0
            labels = labels - 1
        highest = labels.max(initial=0, where=~ignored)
        if highest > self.ignore_index:
            raise ValueError(f'seg_map_path {path}: label {highest} is above ignore_index={self.ignore_index}, which '
                             f'would be a class: set ignore_index={_VOID} in LoadLabels, decode_head, seg_pad_val and '
                             'the metric')
        labels[ignored] = self.ignore_index
        mapped = labels.copy()
        for old, new in (results.get('label_map') or {}).items():
            mapped[labels == old] = new
        results['gt_seg_map'] = mapped.astype(np.uint8 if self.ignore_index <= 255 else np.uint16)
        results['seg_fields'].append('gt_seg_map')

    def _read(self, path: str) -> np.ndarray:
        """Read the values of a file, (H, W) int64."""
        content = get(path, backend_args=self.backend_args)
        try:
            labels = mmcv.imfrombytes(content, flag='unchanged', backend=self.imdecode_backend)
        except Exception as error:  # every decoder has its own errors, and none names the file
            raise ValueError(f'seg_map_path {path}: the file is empty or cannot be decoded') from error
        if labels.ndim != 2:
            raise ValueError(f'seg_map_path {path}: a label map has one channel, got an image of shape {labels.shape}')
        return labels.astype(np.int64)
