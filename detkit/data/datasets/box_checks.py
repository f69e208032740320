"""What can be wrong with one annotated box (xyxy pixels), in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detkit.data.datasets.problems import SUSPECT, Problems
from detkit.utils.types import Floats

CORNERS = ("xmin", "ymin", "xmax", "ymax")
FRACTION = "lies within the first pixel"
LARGEST = 1e30
"""Coordinates are single precision in training, where squares of larger ones overflow."""


def swap_corners(box: Floats) -> bool:
    """Sorts the corners of a clipped box in place; returns whether it has an area now."""
    if not np.isfinite(box).all():
        return False
    box[:] = (*np.minimum(box[:2], box[2:]), *np.maximum(box[:2], box[2:]))
    return bool((box[2:] > box[:2]).all())


def in_first_pixel(box: Floats) -> bool:
    """Whether a box could be in fractions of the image, which may reach over the edge by a tenth."""
    return bool(box.min() >= -0.1 and box.max() <= 1.1)


def box_problem(box: Floats, size: tuple[int, int]) -> str | None:
    """Why a box can't be trained on in an image of (height, width) `size`; None if it can."""
    x1, y1, x2, y2 = box.tolist()
    if not np.isfinite(box).all():
        return "a coordinate is not finite"
    if not (np.abs(box) < LARGEST).all():
        return f"a coordinate is beyond {LARGEST:g}"
    for low, high, name in ((x1, x2, "x"), (y1, y2, "y")):
        if high < low:
            return f"inverted: {name}max={high:g} lies before {name}min={low:g}"
    if np.float32(x2) == np.float32(x1) or np.float32(y2) == np.float32(y1):
        return "zero area"
    height, width = size
    if height > 0 and (x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height):
        return f"outside of the image of {width}x{height}: {describe_overhang(box, size)}"
    if in_first_pixel(box) and not (box == np.round(box)).all() and not 0 < max(size) <= 8:
        return f"{FRACTION}, as a box in fractions of the image does"
    return None


def describe_overhang(box: Floats, size: tuple[int, int]) -> str:
    """The sides of a box that lie beyond the image, as in "xmax=5000 in an image 500 wide"."""
    height, width = size
    x1, y1, x2, y2 = box.tolist()
    beyond = [f"{name}={value:g}" for name, value in zip(CORNERS, (x1, y1, x2, y2), strict=True) if value < 0]
    for low, high, side, name, word in ((x1, x2, width, "x", "wide"), (y1, y2, height, "y", "high")):
        over = [f"{name}{end}={value:g}" for end, value in (("min", low), ("max", high)) if value > side]
        if not over and low >= side:
            over = [f"{name}min={low:g}"]
        if over:
            beyond.append(f"{', '.join(over)} in an image {side} {word}")
    return ", ".join(beyond)


def box_text(index: int, box: Floats) -> str:
    """Number of a box in its image, from 1, and its corners."""
    return f"box {index + 1} {[round(float(v), 2) for v in box]}"


def note_corners(boxes: Sequence[Sequence[float]], size: tuple[int, int], where: str, problems: Problems) -> None:
    """Counts `corner_suspects`. where: the image, as messages name it."""
    if beyond := corner_suspects(boxes, size):
        text = "x, y, width, height reach over the edge, which two corners (xmin, ymin, xmax, ymax) would not"
        first = [round(v, 2) for v in boxes[beyond[0]]]
        problems.add(SUSPECT, f"{where}, bbox {first}: {text}", count=len(beyond))


def corner_suspects(boxes: Sequence[Sequence[float]], size: tuple[int, int]) -> list[int]:
    """Boxes (x, y, width, height) of an image that reach over its edge, if all of them would make sense as two corners.

    Empty if less than half of them do: those reach over the edge. size: (height, width), or below 1 where unknown.
    """
    b, limits = np.array(boxes, np.float64).reshape(-1, 4), np.array(size[::-1])
    if limits.min() < 1 or not np.isfinite(b).all():
        return []
    if not ((b[:, 2:] > b[:, :2]) & (b[:, :2] >= 0) & (b[:, 2:] <= limits)).all():
        return []
    beyond = np.flatnonzero((b[:, :2] + b[:, 2:] > limits * 1.02 + 1).any(axis=1)).tolist()
    return beyond if 2 * len(beyond) >= len(b) else []
