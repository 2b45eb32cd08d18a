"""How difficult Shapes are."""

import math
from dataclasses import dataclass, fields
from numbers import Real

__all__ = ['Style']


@dataclass(frozen=True)
class Style:
    """What makes the images of a data set difficult; the same for all of them.

    Attributes:
        ambiguity: Range of the illumination over the distance between the two tints of a pair, at least 0; see the
            head of :mod:`knet_plugin.datasets.shapes.make`.
        hue: How strongly every class has its own colour (that of ``PALETTE``, in log reflectance), at least 0: at 0
            there are warm and cool alone, at 1 a colour by itself names its class.
        min_object: Diameter of the smallest objects in pixels, above 0. Members of crowds are always tiny.

    Raises:
        ValueError: A number is out of its range.
    """

    ambiguity: float = 3.0
    hue: float = 0.0
    min_object: float = 6.0

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value: float = getattr(self, name)
            if not isinstance(value, Real) or not 0 <= value < math.inf or (value == 0 and name == 'min_object'):
                bound = 'above 0' if name == 'min_object' else 'of at least 0'
                raise ValueError(f'{name} must be a finite number {bound}, got {value!r}')
            object.__setattr__(self, name, float(value))  # numpy's numbers are no JSON
