"""Loading transforms whose errors name the file that is unusable."""

import numpy as np
from mmcv.transforms import LoadImageFromFile as StockLoadImageFromFile
from mmdet.datasets.transforms import LoadPanopticAnnotations as StockLoadPanopticAnnotations
from mmdet.structures.mask import BitmapMasks

from knet_plugin.datasets.panoptic_png import read_segment_ids
from knet_plugin.registry import TRANSFORMS

__all__ = ['LoadImageFromFile', 'LoadPanopticAnnotations', 'check_size']


@TRANSFORMS.register_module()
class LoadImageFromFile(StockLoadImageFromFile):
    """mmcv's transform, which also checks the size of the image.

    Use mmcv's in ``test_dataloader``, because mmdet's inferencer searches the pipeline for it by name.
    """

    def transform(self, results: dict) -> dict | None:
        """Read ``img_path`` into ``img``, (H, W, 3).

        Raises:
            ValueError: The file cannot be decoded, or the data set has another ``height`` or ``width``.
        """
        path = results['img_path']
        try:
            loaded = super().transform(results)
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # every decoder has its own errors, and none names the file
            raise ValueError(f'img_path {path}: the file is empty or cannot be decoded') from error
        if loaded is not None and results.get('height') and results.get('width'):
            check_size('img_path', path, loaded['ori_shape'], (results['height'], results['width']), 'annotation file')
        return loaded


@TRANSFORMS.register_module()
class LoadPanopticAnnotations(StockLoadPanopticAnnotations):
    """mmdet's transform; a PNG that does not fit the image or its annotations is an error that names the PNG.

    Segments that no pixel has are skipped, unless that is true of all segments of the image.
    """

    def transform(self, results: dict) -> dict:
        """Add boxes, labels, ``gt_masks`` of the things, (G, H, W), and ``gt_seg_map``, (H, W).

        Raises:
            ValueError: The PNG cannot be decoded, has another size, or none of the segments.
        """
        path = results.get('seg_map_path')
        if path is None or not (self.with_mask or self.with_seg):  # no ground truth, or none of the PNG
            return super().transform(results)
        ids = read_segment_ids(path, [each['id'] for each in results['segments_info']], self.backend_args)
        check_size('seg_map_path', path, ids.shape, results['ori_shape'], 'image')
        _skip_absent(results, ids)
        if self.with_bbox:
            self._load_bboxes(results)
        if self.with_label:
            self._load_labels(results)
        self._add_maps(results, ids)
        return results

    def _add_maps(self, results: dict, ids: np.ndarray) -> None:
        """Add what the segment ids of the pixels, (H, W), tell."""
        # mmdet's own code squeezes the image, which fails for a single row or column.
        labels = np.full_like(ids, 255)  # void
        things = []
        for segment in results['segments_info']:
            mask = ids == segment['id']
            labels[mask] = segment['category']
            if segment['is_thing']:
                things.append(mask.astype(np.uint8))
        masks = BitmapMasks(things, *results['ori_shape'])
        if self.with_mask:
            results['gt_masks'] = masks
        if self.with_bbox and results.get('boxes_from_masks'):  # PanopticDataset found no boxes
            results['gt_bboxes'] = masks.get_bboxes(self.box_type)
        if self.with_seg:
            results['gt_seg_map'] = labels


def _skip_absent(results: dict, ids: np.ndarray) -> None:
    """Leave out the segments that no pixel has, and the objects that belong to them.

    Raises:
        ValueError: No pixel has any of the segments.
    """
    segments = results['segments_info']
    absent = set(np.setdiff1d([segment['id'] for segment in segments], ids).tolist())
    if not absent:
        return
    if absent.issuperset(segment['id'] for segment in segments):
        raise ValueError(f'seg_map_path {results["seg_map_path"]}: segments_info lists ids {sorted(absent)}, which no '
                         'pixel has')
    results['segments_info'] = [segment for segment in segments if segment['id'] not in absent]
    things = [segment for segment in segments if segment['is_thing']]  # an object each, in this order
    results['instances'] = [instance for segment, instance in zip(things, results['instances'], strict=True)
                            if segment['id'] not in absent]


def check_size(field: str, path: str, size: tuple[int, ...], expected: tuple[int, int], source: str) -> None:
    """Raise a ``ValueError`` if a file has another (height, width) than its ``source`` says."""
    if tuple(size) != tuple(expected):
        raise ValueError(f'{field} {path}: size {tuple(size)} (height, width), but {tuple(expected)} in the {source}')
