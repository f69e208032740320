"""Transforms that leave boxes where they are."""

from __future__ import annotations

from detkit.data.transforms.base import V2Transform
from detkit.registry import TRANSFORMS
from detkit.registry.arguments import within


@TRANSFORMS.register()
class ColorJitter(V2Transform):
    """Brightness, contrast and saturation times a factor in [1 - x, 1 + x], hue shifted by up to x.

    The hue's circle has length 1: 0.5 reaches every hue.
    """

    moves_boxes = False

    def __init__(
        self, *, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0, hue: float = 0.0
    ) -> None:
        from torchvision.transforms import v2

        for name, most in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
            within(name, most, 0, 100)
        within("hue", hue, 0, 0.5)
        self.inner = v2.ColorJitter(brightness, contrast, saturation, hue)


@TRANSFORMS.register()
class RandomPhotometricDistort(V2Transform):
    """SSD's colour distortion (1512.02325, section 2.2): each kind of change with probability p."""

    moves_boxes = False

    def __init__(
        self,
        *,
        brightness: tuple[float, float] = (0.875, 1.125),
        contrast: tuple[float, float] = (0.5, 1.5),
        saturation: tuple[float, float] = (0.5, 1.5),
        hue: tuple[float, float] = (-0.05, 0.05),
        p: float = 0.5,
    ) -> None:
        from torchvision.transforms import v2

        if not 0 <= p <= 1:
            raise ValueError(f"p: {p} is not a probability")
        for name, span in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
            within(name, span, 0, 100)
            within(name, span[0], 0, span[1])
        within("hue", hue, -0.5, 0.5)
        within("hue", hue[0], -0.5, hue[1])
        self.inner = v2.RandomPhotometricDistort(brightness, contrast, saturation, hue, p)
