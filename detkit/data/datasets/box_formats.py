"""Notations of a box as four numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from detkit.data.datasets.problems import COUNTS_FROM_ZERO, Problems

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


def from_one_based(box: list[float], where: str, problems: Problems) -> tuple[list[float], list[float]]:
    """Corners of pixels that count from 1, the last one inside -> corners, and x, y, width, height, that count from 0.

    Counts a box that begins at 0. where: the box, in messages.
    """
    x1, y1, x2, y2 = box
    # A box without area, or in fractions, must not be moved before it is seen.
    has_pixels = x2 > x1 and y2 > y1 and max(box) > 1.1
    if has_pixels and min(x1, y1) == 0:
        problems.add(COUNTS_FROM_ZERO, f"{where} {box}")
    corners = [x1 - 1, y1 - 1, x2, y2] if has_pixels else box
    return corners, [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1]
