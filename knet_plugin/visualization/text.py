"""Text in pictures: a font that can show it, its size, and writing it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
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
    """Write a text into an image, in place.

    Args:
        image: (H, W, 3) uint8.
        text: One line.
        corner: x, y of the upper left corner of the box that :func:`text_size` measures.
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

    return ImageFont.truetype(str(_font_file(text) or _default_font()), size)


@lru_cache(maxsize=1)
def _default_font() -> Path:
    """Return DejaVu Sans, which comes with matplotlib: Latin, Greek, Cyrillic, Arabic, and many signs."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / 'DejaVuSans.ttf'


@lru_cache(maxsize=4096)
def _font_file(text: str) -> Path | None:
    needed = {ord(character) for character in text if not character.isspace()}
    if needed <= _characters(_default_font()):
        return _default_font()
    for path in _cjk_fonts():
        if needed <= _characters(path):
            return path
    logging.getLogger(__name__).warning('no font on this machine shows %r; pictures show a number instead', text)
    return None


@lru_cache(maxsize=1)
def _cjk_fonts() -> list[Path]:
    """Return the fonts of this machine that promise Chinese, Japanese or Korean characters, in a fixed order."""
    from matplotlib.font_manager import fontManager

    fonts = {Path(font.fname) for font in fontManager.ttflist if any(word in font.name for word in _CJK_FONTS)}
    return sorted(path for path in fonts if path.is_file())


@lru_cache(maxsize=32)
def _characters(path: Path) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(str(path)).get_charmap())
    except RuntimeError:  # not a font that FreeType reads
        return frozenset()
