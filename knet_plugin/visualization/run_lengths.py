"""Masks in COCO's run-length encoding, decoded where they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ['decode_columns', 'run_lengths']


def decode_columns(encoding: Mapping[str, Any]) -> tuple[int, np.ndarray]:
    """Decode the columns of a mask that are not empty; pycocotools decodes the whole image, which takes its memory.

    Args:
        encoding: As pycocotools has it: size (height, width), counts as bytes.

    Returns:
        The first column, and a Boolean mask (height, columns), without columns if the mask is empty.
    """
    height = int(encoding['size'][0])
    lengths = run_lengths(encoding['counts'])
    lengths = lengths[:len(lengths) // 2 * 2]  # runs of zeros and ones in turn; ends with ones
    ends = np.cumsum(lengths)
    if len(lengths) == 0 or ends[-1] == lengths[0::2].sum():
        return 0, np.zeros((height, 0), bool)
    first, last = int(lengths[0]) // height, (int(ends[-1]) - 1) // height
    lengths[0] -= first * height
    pixels = np.zeros((last + 1 - first) * height, bool)
    pixels[:lengths.sum()] = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return first, pixels.reshape(-1, height).T


def run_lengths(counts: bytes | str) -> np.ndarray:
    """Return the lengths of the runs that the counts of an encoding hold.

    Each length is a number of 5-bit digits, the lowest first, one character each; bit 5 says that more digits follow,
    and bit 4 of the last is the sign. From the fourth on, they are differences to the length two before.
    """
    text = counts.encode() if isinstance(counts, str) else counts
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    is_last = codes & 0x20 == 0
    starts = np.flatnonzero(np.concatenate([[True], is_last[:-1]]))[:np.count_nonzero(is_last)]
    if len(starts) == 0:
        return np.zeros(0, np.int64)
    ends = np.flatnonzero(is_last)
    digit = np.arange(len(codes)) - np.repeat(starts, np.diff(np.append(starts, len(codes))))
    lengths = np.add.reduceat((codes & 0x1F) << (5 * digit), starts)
    lengths -= np.where(codes[ends] & 0x10, 1 << (5 * (digit[ends] + 1)), 0)
    lengths[1::2] = np.cumsum(lengths[1::2])
    lengths[2::2] = np.cumsum(lengths[2::2])
    return lengths
