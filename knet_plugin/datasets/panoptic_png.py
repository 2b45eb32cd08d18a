"""PNGs of panoptic annotations, and what ``segments_info`` says of them."""

import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image
from scipy.ndimage import find_objects

__all__ = ['measure_segments', 'read_segment_ids', 'segment_colours']

_COLOUR_TYPE = 25  # its byte in a PNG file
_ONE_CHANNEL = (0, 3)  # grey, palette


def read_segment_ids(path: str, listed: Sequence[int] = (), backend_args: dict | None = None) -> np.ndarray:
    """Read the segment id of each pixel, (H, W); 0 is unlabelled.

    In colours, the id is R + 256 G + 65536 B. In grey and palette PNGs, it is the value or index, unless colours give
    more of the ids: tools that make PNGs smaller turn few colours into a palette.

    Args:
        path: The file.
        listed: Ids that the annotation gives. Without them, all PNGs are read as colours, like mmdet does.
        backend_args: mmengine's file backend.

    Raises:
        ValueError: The file cannot be decoded.
    """
    import mmcv  # here, because the runtime without the hosts writes PNGs only
    from mmengine.fileio import get

    content = get(path, backend_args=backend_args)
    try:
        image = mmcv.imfrombytes(content, flag='color', channel_order='rgb')
        # The bytes of one number, whose fourth is the alpha channel.
        colours = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA).view('<i4')[..., 0] & 0xFFFFFF
        if not listed or not content.startswith(b'\x89PNG') or content[_COLOUR_TYPE] not in _ONE_CHANNEL:
            return colours
        with Image.open(io.BytesIO(content)) as picture:
            values = np.asarray(picture).astype(np.int32)
    except Exception as error:  # every decoder has its own errors, and none names the file
        raise ValueError(f'seg_map_path {path}: the file is empty or cannot be decoded') from error
    return max(colours, values, key=lambda ids: np.isin(listed, ids).sum())


def segment_colours(ids: np.ndarray) -> np.ndarray:
    """Return the colours of a panoptic PNG in OpenCV's order, (H, W, 3) BGR uint8, for segment ids (H, W)."""
    content = np.ascontiguousarray(ids, '<i4').view(np.uint8)
    return content.reshape(*ids.shape, 4)[..., 2::-1]  # id = R + 256 G + 65536 B


def measure_segments(ids: np.ndarray) -> dict[int, dict[str, Any]]:
    """Return ``id``, ``bbox`` (x, y, width, height) and ``area`` of each segment that has a pixel in (H, W)."""
    area = np.bincount(ids.ravel())
    measured = {}
    for number, place in enumerate(find_objects(ids), start=1):
        if place is not None:
            rows, columns = place
            box = [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]
            measured[number] = dict(id=number, bbox=box, area=int(area[number]))
    return measured
