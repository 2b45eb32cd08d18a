"""Colours and textures of Shapes, and the illumination under which an image is rendered.

Colours are logarithms of reflectance: a change of illumination adds the same constant to every colour of the image.
"""

from dataclasses import dataclass

import cv2
import numpy as np

_TINT = 0.11  # half the distance between warm and cool: added to red, subtracted from blue
_TINT_JITTER = 0.2 * _TINT
_GREEN_JITTER = 0.06  # independent of the class
_LUMINANCE = (0.25, 0.6)
_SHADE = 0.25
_TEXTURE_CONTRAST = (0.15, 0.35)
_TEXTURE_WAVELENGTH = (5.0, 11.0)  # pixels
_GAIN = 0.15  # of all channels
_GAMMA = (0.85, 1.15)
_BLUR = (0.4, 0.9)  # pixels
_NOISE = (0.01, 0.03)  # standard deviation relative to full scale
_SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class Look:
    """Appearance of a region. The texture is ``contrast * cos(p @ wave)``; checks multiply a second, rotated wave."""

    colour: tuple[float, float, float]
    shade: tuple[float, float] = (0.0, 0.0)  # slope of the brightness along x and y, per pixel
    centre: tuple[float, float] = (0.0, 0.0)  # where the shade is 0
    wave: tuple[float, float] = (0.0, 0.0)
    contrast: float = 0.0
    checks: bool = False


@dataclass
class Canvas:
    """Regions of a scene: ``paint_map`` (H, W) uint8 indexes the look and the segment of each region."""

    paint_map: np.ndarray
    looks: list[Look]
    segments: list[int]

    def fill(self, outlines: list[np.ndarray], look: Look, segment: int) -> None:
        """Paint polygons, each (P, 2) as x and y in pixels; a polygon inside another is a hole."""
        fixed = [np.round(outline * 2**_SUBPIXEL_BITS).astype(np.int32) for outline in outlines]
        cv2.fillPoly(self.paint_map, fixed, len(self.looks), shift=_SUBPIXEL_BITS)
        self.looks.append(look)
        self.segments.append(segment)


def thing_look(rng: np.random.Generator, tint: int | None, hue: np.ndarray, centre: tuple[float, float],
               radius: float) -> Look:
    """Draw a plain colour, warm (``tint`` 1), cool (-1) or either (None), that gets brighter towards one side."""
    angle = rng.uniform(0, 2 * np.pi)
    slope = _SHADE / radius
    return Look(_colour(rng, tint, hue), shade=(slope * np.cos(angle), slope * np.sin(angle)), centre=centre)


def stuff_look(rng: np.random.Generator, texture: str, tint: int, hue: np.ndarray) -> Look:
    """Draw ``'stripes'`` or ``'checks'``, warm (``tint`` 1) or cool (-1), of random direction and wavelength."""
    angle = rng.uniform(0, 2 * np.pi)
    frequency = 2 * np.pi / rng.uniform(*_TEXTURE_WAVELENGTH)
    return Look(_colour(rng, tint, hue), wave=(frequency * np.cos(angle), frequency * np.sin(angle)),
                contrast=rng.uniform(*_TEXTURE_CONTRAST), checks=texture == 'checks')


def render(rng: np.random.Generator, canvas: Canvas, warp: np.ndarray, ambiguity: float) -> np.ndarray:
    """Render a scene as (H, W, 3) uint8 RGB.

    ``warp``, (H, W, 2) float32, displaces the textures along x and y in pixels. ``ambiguity``: see ``Style``.
    """
    height, width = canvas.paint_map.shape
    looks = np.array([(*look.colour, *look.shade, -np.dot(look.shade, look.centre), *look.wave, look.contrast,
                       look.checks) for look in canvas.looks], np.float32)
    (red, green, blue, shade_x, shade_y, shade_0, wave_x, wave_y, contrast,
     checks) = looks.T.take(canvas.paint_map, axis=1)  # each (H, W)
    x = np.arange(width, dtype=np.float32)
    y = np.arange(height, dtype=np.float32)[:, None]
    shade = shade_x * x + shade_y * y + shade_0
    x, y = x + warp[..., 0], y + warp[..., 1]
    texture = np.cos(wave_x * x + wave_y * y) * np.where(checks, np.cos(wave_y * x - wave_x * y), 1)
    luminance = shade + contrast * texture

    warmth, greenness, brightness = rng.uniform(-1, 1, 3) * (ambiguity * _TINT, _GREEN_JITTER, _GAIN)
    luminance += brightness
    logarithms = cv2.merge((red + luminance + warmth, green + luminance + greenness, blue + luminance - warmth))
    image = cv2.exp(rng.uniform(*_GAMMA) * logarithms)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(*_BLUR))
    image += rng.uniform(*_NOISE) * rng.standard_normal(image.shape, dtype=np.float32)
    return (image * 255).clip(0, 255).astype(np.uint8)


def _colour(rng: np.random.Generator, tint: int | None, hue: np.ndarray) -> tuple[float, float, float]:
    """Draw the log reflectances of red, green and blue."""
    sign = rng.choice((-1, 1)) if tint is None else tint
    warmth = sign * _TINT + rng.normal(0, _TINT_JITTER)
    luminance = np.log(rng.uniform(*_LUMINANCE))
    red, green, blue = luminance + warmth, luminance + rng.normal(0, _GREEN_JITTER), luminance - warmth
    return red + hue[0], green + hue[1], blue + hue[2]
