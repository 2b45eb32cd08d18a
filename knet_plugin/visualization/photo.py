"""Photos of any type and number of channels as 8-bit RGB, and how big to draw on them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

__all__ = ['as_rgb', 'font_size', 'line_width', 'strips']

_STRIP_PIXELS = 1 << 17
_SAMPLE_PIXELS = 1 << 18


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Return a new (H, W, 3) uint8 image.

    One or two channels give grey from the first; of more than three channels, the first three are red, green and blue.
    Values of other types than uint8 have no fixed range (12 of 16 bits, reflectances), so they are stretched: their
    1st percentile becomes 0, their 99th 255, equally in all channels.

    Args:
        image: (H, W) or (H, W, C) of any integer, float or Boolean type.

    Raises:
        ValueError: ``image`` has another shape or no pixels.
    """
    image = np.asarray(image)
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f'image must be (H, W) or (H, W, C) with at least one pixel, got shape {image.shape}')
    channels = image[..., None] if image.ndim == 2 else image
    channels = channels[..., :3] if channels.shape[2] >= 3 else channels[..., :1]
    rgb = np.empty((*image.shape[:2], 3), np.uint8)
    if image.dtype == np.uint8:
        rgb[:] = channels
        return rgb
    low, high = _value_range(channels)
    for rows in strips(*image.shape[:2]):
        strip = np.nan_to_num(channels[rows].astype(np.float32), nan=low, posinf=high, neginf=low)
        rgb[rows] = np.clip((strip - low) * (255 / (high - low)) + 0.5, 0, 255)
    return rgb


def _value_range(channels: np.ndarray) -> tuple[float, float]:
    step = max(1, int((channels.shape[0] * channels.shape[1] / _SAMPLE_PIXELS) ** 0.5))
    values = channels[::step, ::step].astype(np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(values, (1, 99))
    if high <= low:
        low, high = values.min(), values.max()
    return float(low), float(high if high > low else low + 1)


def strips(height: int, width: int) -> Iterator[slice]:
    """Yield slices of rows with about 130,000 pixels each, to bound the memory of what is computed from a map."""
    rows = max(64, _STRIP_PIXELS // width)
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))


def line_width(height: int, width: int) -> int:
    """Return the width of outlines in pixels: 1 in images of 200 pixels, 6 in images of 4,000."""
    return max(1, round(_side(height, width) / 700))


def font_size(height: int, width: int) -> int:
    """Return the height of the font in pixels: 10 in images of 200 pixels, 14 in 640 x 480, 68 in images of 4,000."""
    return max(10, round(_side(height, width) * 0.016 + 4))


def _side(height: int, width: int) -> float:
    """Return the side of a square of equal area, but not more than three times the shorter side."""
    return min((height * width) ** 0.5, 3 * min(height, width))
