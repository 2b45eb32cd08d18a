"""Loading that stops at a bad file and names it, where the stock transforms name none or go on with wrong pixels."""

import zlib
from collections.abc import Mapping
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile as StockLoadImageFromFile
from mmdet.datasets.transforms import LoadAnnotations as StockLoadAnnotations
from mmdet.datasets.transforms import LoadPanopticAnnotations as StockLoadPanopticAnnotations
from mmdet.structures.mask import BitmapMasks
from mmengine.fileio import get

from knet_plugin.registry import TRANSFORMS

__all__ = ['LoadAnnotations', 'LoadImageFromFile', 'LoadPanopticAnnotations', 'png_damage']

_PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_VOID = 255
_FARTHEST = 1e6
"""Coordinate, in pixels, that is no slip of an annotator any more: COCO's rasteriser takes memory for the way there."""


@TRANSFORMS.register_module()
class LoadImageFromFile(StockLoadImageFromFile):
    """mmcv's, which for an empty file shows an error of OpenCV without the file's name.

    Images of another size than the annotation file says are errors as well: their masks would not lie on the objects.
    The arguments are mmcv's. Leave mmcv's in the pipeline of ``test_dataloader``: mmdet's inferencer looks for it there
    by its name, which some versions want without a scope.
    """

    def transform(self, results: dict) -> dict | None:
        """Read ``img_path``.

        Args:
            results: ``img_path``, and as far as the data set tells it the ``height`` and ``width`` in pixels.

        Returns:
            The same dict with ``img`` (H, W, 3), ``img_shape`` and ``ori_shape``; None for an unreadable image if
            ``ignore_empty`` is set.

        Raises:
            FileNotFoundError: The file is missing.
            ValueError: The file is empty or cannot be decoded, or its size is not that of the annotations.
        """
        path = results['img_path']
        try:
            loaded = super().transform(results)
        except Exception as error:
            if isinstance(error, OSError) and error.filename:  # missing or not permitted: it names the file by itself
                raise
            empty = isinstance(error, cv2.error) and 'buf.empty()' in str(error)
            problem = 'the file is empty' if empty else f'the image cannot be decoded ({type(error).__name__}: {error})'
            raise ValueError(f'img_path {path}: {problem}') from error
        if loaded is not None:
            _check_size('img_path', path, loaded['ori_shape'], _annotated_size(results), 'the annotation file says')
        return loaded


@TRANSFORMS.register_module()
class LoadAnnotations(StockLoadAnnotations):
    """mmdet's, with the same results, but a segmentation that cannot be drawn is an error that names the image.

    mmdet's own names none, and COCO's rasteriser makes some such masks of whatever is in the memory. What mmdet decides
    to ignore (polygons of less than three points) stays ignored. The arguments are mmdet's.
    """

    def _load_masks(self, results: dict) -> None:
        """Add ``gt_masks`` (G, H, W) and ``gt_ignore_flags``.

        Raises:
            ValueError: An object has no segmentation, or one that is neither polygons nor an RLE of the image's size.
        """
        for instance in results.get('instances', []):
            if problem := _mask_problem(instance.get('mask'), results['ori_shape']):
                raise ValueError(f'segmentation of the object in the box {instance.get("bbox")} (x1, y1, x2, y2) of '
                                 f'img_path {results.get("img_path")}: {problem}')
        super()._load_masks(results)


@TRANSFORMS.register_module()
class LoadPanopticAnnotations(StockLoadPanopticAnnotations):
    """mmdet's, with the same results, but what does not fit is an error that names the file.

    mmdet's own does not name an unreadable PNG, fails far away or not at all if its size is another one than the
    image's, and gives empty masks to segments that are not in it. The arguments are mmdet's.
    """

    def _load_masks_and_semantic_segs(self, results: dict) -> None:
        """Add ``gt_masks`` of the things, (G, H, W), and ``gt_seg_map``, (H, W), as far as wanted.

        Raises:
            FileNotFoundError: The file ``seg_map_path`` is missing.
            ValueError: It is empty, damaged, of another size than the image, or lacks a segment of the annotations; or
                these list a segment twice.
        """
        path = results.get('seg_map_path')
        if path is None:  # testing without ground truth
            return
        segment_ids = self._read_segment_ids(path)
        for size, source in ((results.get('ori_shape'), f'its image {results.get("img_path")} has'),
                             (_annotated_size(results), 'the annotation file says')):
            _check_size('seg_map_path', path, segment_ids.shape, size, source)

        listed = [segment['id'] for segment in results['segments_info']]
        if missing := np.setdiff1d(listed, segment_ids).tolist():
            raise ValueError(f'seg_map_path {path}: no pixel has the segment ids {missing}, which the annotation '
                             'file lists for this image in segments_info')
        if len(set(listed)) < len(listed):
            repeated = sorted({each for each in listed if listed.count(each) > 1})
            raise ValueError(f'seg_map_path {path}: the annotation file lists the segment ids {repeated} more than '
                             'once for this image in segments_info')
        # Not left to mmdet, whose squeeze() takes a map of one row or column for a single colour.
        labels = np.full_like(segment_ids, _VOID)
        masks = []
        for segment in results['segments_info']:
            mask = segment_ids == segment['id']
            labels[mask] = segment['category']
            if segment['is_thing']:
                masks.append(mask.astype(np.uint8))
        if self.with_mask:
            results['gt_masks'] = BitmapMasks(masks, *results['ori_shape'])
        if self.with_seg:
            results['gt_seg_map'] = labels

    def _read_segment_ids(self, path: str) -> np.ndarray:
        """Segment of each pixel, (H, W) int32."""
        try:
            content = get(path, backend_args=self.backend_args)
        except FileNotFoundError as error:
            raise FileNotFoundError(f'seg_map_path {path}: there is no such file; the data set looks for it in '
                                    'data_prefix.seg, under the name of the image') from error
        if not content:
            raise ValueError(f'seg_map_path {path}: the file is empty')
        # Whether a decoder refuses a damaged file or makes up the missing pixels depends on the decoder.
        if content.startswith(_PNG_SIGNATURE) and (damage := png_damage(content)):
            raise ValueError(f'seg_map_path {path}: the PNG is damaged: {damage}')
        try:
            image = mmcv.imfrombytes(content, flag='color', channel_order='rgb')
        except Exception as error:  # the decoders have an error class each
            raise ValueError(f'seg_map_path {path}: the file cannot be decoded as an image') from error
        return self.rgb2id(image)


def png_damage(content: bytes) -> str | None:
    """Check a PNG by its own lengths and check sums, without decoding it.

    Args:
        content: The file, which begins with the signature of PNG.

    Returns:
        What is wrong, or None.
    """
    position, kind = len(_PNG_SIGNATURE), ''
    while kind != 'IEND':
        # A chunk: 4 bytes length of the data, 4 bytes name, the data, 4 bytes check sum of name and data.
        name = position + 4
        data = name + 4
        end = data + int.from_bytes(content[position:name], 'big')
        kind = content[name:data].decode('latin-1')
        if end + 4 > len(content):
            return f'it is truncated, {len(content)} bytes end before the chunk IEND'
        if zlib.crc32(content[name:end]) != int.from_bytes(content[end:end + 4], 'big'):
            return f'the check sum of its chunk {kind!r} at byte {position} is wrong'
        position = end + 4
    return None


def _mask_problem(mask: Any, size: tuple[int, int]) -> str | None:
    """What is wrong with COCO's ``segmentation`` of an object in an image of (height, width), if anything is."""
    if not mask:
        return 'it is missing'
    if isinstance(mask, list):
        for polygon in mask:
            points = np.asarray(polygon) if isinstance(polygon, list) and not _is_nested(polygon) else None
            if points is None or points.dtype.kind not in 'iuf':
                return f'a polygon has to be a flat list of numbers, got {str(polygon)[:80]}'
            if not (np.abs(points) <= _FARTHEST).all():  # neither is NaN
                return f'a polygon has coordinates that are not finite or beyond {_FARTHEST:.0e} pixels'
        return None
    if not isinstance(mask, Mapping):
        return f'it has to be a list of polygons or a dict with an RLE, got {str(mask)[:80]}'
    counts = mask.get('counts')
    if mask.get('size') is None or not isinstance(counts, list | str):
        return None  # mmdet ignores the object
    if list(mask['size']) != list(size):
        return f'the RLE has the size {mask["size"]} (height, width), but the image {list(size)}'
    runs, pixels = counts if isinstance(counts, list) else _decompressed(counts), size[0] * size[1]
    if not all(isinstance(run, int | float) and run >= 0 for run in runs) or sum(runs) != pixels:
        return f'the counts of the RLE must add up to the {pixels} pixels of the image, got {str(counts)[:80]}'
    return None


def _decompressed(counts: str) -> list[int]:
    """The lengths of a compressed RLE, as COCO's ``rleFrString`` reads them.

    Each is written as its difference from the last but one, in digits of 5 bits, the lowest first; a 6th bit says that
    there is another digit.
    """
    runs: list[int] = []
    value = shift = 0
    for char in counts.encode():
        digit = char - 48
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            if digit & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def _is_nested(polygon: list) -> bool:
    return any(isinstance(each, list | tuple | dict) for each in polygon)


def _annotated_size(results: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width that the annotation file gives the image, None if the data set has none."""
    height, width = results.get('height'), results.get('width')
    return None if height is None or width is None else (height, width)


def _check_size(field: str, path: str, actual: tuple[int, ...], expected: tuple[int, int] | None, source: str) -> None:
    """Compare (height, width) with what another source says, if it does."""
    if expected is not None and tuple(actual[:2]) != tuple(expected[:2]):
        raise ValueError(f'{field} {path}: the file has {actual[0]} x {actual[1]} pixels (height x width), but '
                         f'{source} {expected[0]} x {expected[1]}')
