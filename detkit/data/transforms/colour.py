"""Transforms that leave boxes where they are."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Interval

from detkit.data.transforms.base import V2Transform
from detkit.registry import TRANSFORMS, Fraction
from detkit.registry.bounds import Ascending

Strength = Annotated[float, Interval(ge=0, le=100)]
HalfCircle = Annotated[float, Interval(ge=0, le=0.5)]
HueShift = Annotated[float, Interval(ge=-0.5, le=0.5)]
"""The circle of hues has length 1."""


@TRANSFORMS.register()
class ColorJitter(V2Transform):
    """Random brightness, contrast, saturation and hue.

    Args:
        brightness: x multiplies by a random factor in [1 - x, 1 + x].
        contrast: as brightness.
        saturation: as brightness.
        hue: largest shift; the circle of hues has length 1, so 0.5 reaches every hue.
    """

    moves_boxes = False

    def __init__(
        self,
        *,
        brightness: Strength = 0.0,
        contrast: Strength = 0.0,
        saturation: Strength = 0.0,
        hue: HalfCircle = 0.0,
    ) -> None:
        super().__init__("ColorJitter", brightness, contrast, saturation, hue)


@TRANSFORMS.register()
class RandomPhotometricDistort(V2Transform):
    """SSD's colour distortion (1512.02325, section 2.2).

    Args:
        brightness: range of the factor.
        contrast: range of the factor.
        saturation: range of the factor.
        hue: range of the shift; the circle of hues has length 1.
        p: probability of each kind of change.
    """

    moves_boxes = False

    def __init__(
        self,
        *,
        brightness: Annotated[tuple[Strength, Strength], Ascending()] = (0.875, 1.125),
        contrast: Annotated[tuple[Strength, Strength], Ascending()] = (0.5, 1.5),
        saturation: Annotated[tuple[Strength, Strength], Ascending()] = (0.5, 1.5),
        hue: Annotated[tuple[HueShift, HueShift], Ascending()] = (-0.05, 0.05),
        p: Fraction = 0.5,
    ) -> None:
        super().__init__("RandomPhotometricDistort", brightness, contrast, saturation, hue, p)
