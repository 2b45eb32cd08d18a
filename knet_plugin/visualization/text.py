"""Text in pictures: a font that can show it, its size, and writing it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from knet_plugin.visualization.colours import text_colour

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

__all__ = ['can_show', 'text_size', 'write']

# Words in the names of fonts that have Chinese, Japanese or Korean characters.
_CJK_FONTS = ('CJK', 'WenQuanYi', 'SimHei', 'Hei', 'YaHei', 'PingFang', 'Hiragino', 'Gothic', 'Droid Sans Fallback',
              'Unifont', 'Source Han', 'Malgun', 'Nanum', 'Arial Unicode')


def can_show(text: str) -> bool:
    """Return whether a font on this machine has every character of the text."""
    return _font_file(text) is not None


def text_size(text: str, size: int) -> tuple[int, int]:
    """Return width and height in pixels of a text with its padding."""
    font = _font(text, size)
    ascent, descent = font.getmetrics()
    return int(np.ceil(font.getlength(text))) + 2 * _padding(size), ascent + descent


def write(image: np.ndarray, text: str, corner: tuple[int, int], size: int,
          background: Sequence[int] | None = None) -> None:
    """Write a line of text into an image (H, W, 3) uint8, in place.

    Args:
        image: The image.
        text: The line.
        corner: x, y of the upper left corner of the box that ``text_size`` measures.
        size: Height of the font in pixels.
        background: RGB of a box behind the text, which is then black or white. None: white with a dark outline.
    """
    from PIL import Image, ImageDraw

    width, height = text_size(text, size)
    x, y = corner
    left, top = max(0, x), max(0, y)
    part = image[top:max(top, y + height), left:max(left, x + width)]
    if part.size == 0:
        return
    canvas = Image.fromarray(np.ascontiguousarray(part))
    drawing = ImageDraw.Draw(canvas)
    position = (x - left + _padding(size), y - top)
    if background is None:
        drawing.text(position, text, (255, 255, 255), _font(text, size), stroke_width=max(1, size // 9),
                     stroke_fill=(25, 25, 25))
    else:
        drawing.rounded_rectangle((x - left, y - top, x - left + width - 1, y - top + height - 1), size // 5,
                                  tuple(background))
        drawing.text(position, text, text_colour(background), _font(text, size))
    part[:] = np.asarray(canvas)


def _padding(size: int) -> int:
    return max(2, size // 4)


@lru_cache(maxsize=256)
def _font(text: str, size: int) -> FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.truetype(_font_file(text) or _fonts()[0], size)


@lru_cache(maxsize=4096)
def _font_file(text: str) -> str | None:
    needed = {ord(character) for character in text if not character.isspace()}
    font = next((font for font in _fonts() if needed <= _characters(font)), None)
    if font is None:
        logging.getLogger(__name__).warning('no font on this machine shows %r; pictures show a number instead', text)
    return font


@lru_cache(maxsize=1)
def _fonts() -> list[str]:
    """Return DejaVu Sans, which comes with matplotlib, then this machine's fonts for Chinese, Japanese and Korean."""
    import matplotlib
    from matplotlib.font_manager import fontManager

    return [f'{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf',
            *sorted({font.fname for font in fontManager.ttflist if any(word in font.name for word in _CJK_FONTS)})]


@lru_cache(maxsize=32)
def _characters(font: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(font).get_charmap())
    except (OSError, RuntimeError):  # a font that is gone, or that FreeType does not read
        return frozenset()
