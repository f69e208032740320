"""Notations of a box as four numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]
"""Two corners; a corner and width, height; the centre and width, height."""


def to_corners(box: Sequence[float], notation: BoxFormat, relative_to: tuple[int, int] | None = None) -> list[float]:
    """A box as (xmin, ymin, xmax, ymax) in pixels. relative_to: (height, width) if it is in fractions of the image."""
    a, b, c, d = box
    if notation == "xywh":
        c, d = a + c, b + d
    elif notation == "cxcywh":
        a, b, c, d = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    height, width = relative_to or (1, 1)
    return [a * width, b * height, c * width, d * height]
