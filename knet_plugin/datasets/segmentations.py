"""Segmentations of COCO annotations: which can be drawn, and what they cover."""

import math
from typing import Any, TypeGuard

__all__ = ['complete', 'is_box', 'is_number', 'rle_problem', 'truth', 'usable']

_NO = ('none', '0', '0.0', 'false', 'no', '')
_MAX_COORDINATE = 1e6  # pixels; the memory that pycocotools takes grows with the length of the outline


def usable(segmentation: Any, size: tuple[int, int]) -> tuple[Any, str | None]:
    """Return the part of a segmentation that can be drawn in an image of (height, width), or what is wrong with it."""
    if not segmentation:
        return None, 'an empty or missing segmentation'
    if isinstance(segmentation, dict):
        return segmentation, rle_problem(segmentation, size)
    if not isinstance(segmentation, list):
        return None, 'a segmentation that is neither polygons nor RLE'
    if not isinstance(segmentation[0], list):
        segmentation = [segmentation]  # one polygon without the list around it
    polygons = [polygon for polygon in segmentation if isinstance(polygon, list) and polygon]
    if not polygons:
        return None, 'an empty or missing segmentation'
    polygons = [polygon for polygon in polygons if len(polygon) >= 6 and len(polygon) % 2 == 0]
    if not polygons:
        return None, 'polygons of fewer than 3 points'
    polygons = [polygon for polygon in polygons if _finite(polygon)]
    return polygons, None if polygons else 'polygons whose coordinates are not finite numbers'


def complete(annotation: dict, size: tuple[int, int]) -> bool:
    """Fill ``iscrowd`` of an object in an image of (height, width), and ``area`` and ``bbox`` from its segmentation.

    Returns:
        False if ``area`` or ``bbox`` was missing, and the segmentation has no pixel.
    """
    annotation['iscrowd'] = truth(annotation.get('iscrowd'))
    area, box = annotation.get('area'), annotation.get('bbox')
    if is_number(area) and area > 0 and is_box(box) and min(box[2:]) > 0:
        return True
    from pycocotools import mask as mask_utils

    rle = annotation['segmentation']
    if isinstance(rle, list) or isinstance(rle['counts'], list):
        rle = mask_utils.frPyObjects(rle, *size)
    rle = mask_utils.merge(rle) if isinstance(rle, list) else rle
    annotation.update(area=float(mask_utils.area(rle)), bbox=mask_utils.toBbox(rle).tolist())
    return annotation['area'] > 0


def truth(value: Any) -> int:
    """Return 0 or 1 for a number, Boolean or text such as 'false'."""
    return int(str(value).lower() not in _NO)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether an ``area`` can be read."""
    return isinstance(value, int | float)


def is_box(value: Any) -> TypeGuard[list]:
    """Whether a ``bbox`` can be read."""
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value))


def rle_problem(rle: dict, size: tuple[int, int]) -> str | None:
    """What is wrong with an RLE; pycocotools fills what it does not cover with arbitrary memory."""
    if list(rle.get('size') or ()) != list(size):
        return 'an RLE of another size than the image'
    try:
        runs = rle['counts'] if isinstance(rle['counts'], list) else _run_lengths(rle['counts'])
        complete = all(isinstance(run, int) for run in runs) and min(runs) >= 0 and sum(runs) == size[0] * size[1]
    except (KeyError, TypeError, ValueError, AttributeError):
        complete = False
    return None if complete else 'an RLE that does not cover the image'


def _run_lengths(counts: str) -> list[int]:
    """Read the run lengths of a compressed RLE, as ``rleFrString`` of pycocotools does.

    A number is a sequence of characters with 5 bits each, the lowest first; from the fourth on, it is the difference to
    the number two before. A loop, because most strings are short.
    """
    runs: list[int] = []
    number = shift = 0
    for character in counts.encode('ascii'):
        bits = character - 48
        number |= (bits & 31) << shift
        shift += 5
        if not bits & 32:  # the last character of a number
            number -= (bits >> 4 & 1) << shift  # its sign
            runs.append(number + runs[-2] if len(runs) > 2 else number)
            number = shift = 0
    if shift:
        raise ValueError('the last number is cut')
    return runs


def _finite(polygon: list) -> bool:
    try:
        return math.isfinite(sum(polygon)) and -_MAX_COORDINATE <= min(polygon) <= max(polygon) <= _MAX_COORDINATE
    except TypeError:
        return False
