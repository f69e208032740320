"""What can be wrong with one box (xyxy pixels), in words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mend(box: NDArray[np.float64]) -> bool:
    """Swaps the corners of a clipped box in place where that helps; whether it has an area now."""
    if not np.isfinite(box).all():
        return False
    box[:] = (*np.minimum(box[:2], box[2:]), *np.maximum(box[:2], box[2:]))
    return bool((box[2:] > box[:2]).all())


FRACTION = "lies within the first pixel"


def in_first_pixel(box: NDArray[np.float64]) -> bool:
    """Whether a box (xyxy) could be one in fractions of the image, which may reach over the edge by a tenth."""
    return bool(box.min() >= -0.1 and box.max() <= 1.1)


LARGEST = 1e30
"""Coordinates are single precision in training; what is larger counts as not finite."""


def box_problem(box: NDArray[np.float64], size: tuple[int, int]) -> str | None:
    """Why a box (xyxy) can't be learnt from in an image of (height, width) `size`, or None."""
    x1, y1, x2, y2 = box.tolist()
    if not (np.abs(box) < LARGEST).all():
        return "a coordinate is not finite"
    for low, high, name in ((x1, x2, "x"), (y1, y2, "y")):
        if high < low:
            return f"inverted: {name}max={high:g} lies before {name}min={low:g}"
    if np.float32(x2) == np.float32(x1) or np.float32(y2) == np.float32(y1):
        return "zero area"
    height, width = size
    if height > 0 and (x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height):
        return f"outside of the image of {width}x{height}: {edges(box, size)}"
    if in_first_pixel(box) and not (box == np.round(box)).all() and not 0 < max(size) <= 8:
        return f"{FRACTION}, as a box in fractions of the image does"
    return None


def edges(box: NDArray[np.float64], size: tuple[int, int]) -> str:
    """Which sides of a box (xyxy) lie beyond the image, as in "xmax=5000 in an image 500 wide"."""
    height, width = size
    x1, y1, x2, y2 = box.tolist()
    beyond = [f"{name}={value:g}" for name, value in (("xmin", x1), ("ymin", y1)) if value < 0]
    beyond += [f"{name}={value:g}" for name, value in (("xmax", x2), ("ymax", y2)) if value < 0]
    for low, high, side, name, word in ((x1, x2, width, "x", "wide"), (y1, y2, height, "y", "high")):
        over = [f"{name}{end}={value:g}" for end, value in (("min", low), ("max", high)) if value > side]
        if not over and low >= side:
            over = [f"{name}min={low:g}"]
        if over:
            beyond.append(f"{', '.join(over)} in an image {side} {word}")
    return ", ".join(beyond)


def box_text(index: int, box: NDArray[np.float64]) -> str:
    """Number of a box in its image, from 1, and its corners."""
    return f"box {index + 1} {[round(float(v), 2) for v in box]}"
