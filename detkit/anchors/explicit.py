"""Anchors of given widths and heights, as clustering a data set's boxes gives them (1612.08242, section 2)."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Interval, MinLen

from detkit.anchors.grid import GridAnchors, centred_boxes, check_levels
from detkit.registry import ANCHORS
from detkit.registry.bounds import LARGEST_SIDE

Pixels = Annotated[float, Interval(gt=0, le=100 * LARGEST_SIDE)]
Shapes = Annotated[list[tuple[Pixels, Pixels]], MinLen(1)]
"""(width, height) of the anchors of a level."""


@ANCHORS.register()
class ExplicitAnchors(GridAnchors):
    """Anchors of given width and height in pixels of the network's input; `detkit anchors fit` finds them.

    Args:
        sizes: (width, height) pairs, one list for each level, finest first, or one list for every level. The anchors
            of a cell are in this order.
        offset: centre of an anchor within its cell, in cells; 0.5 is the middle.
    """

    def __init__(
        self,
        *,
        strides: tuple[int, ...],
        sizes: Shapes | Annotated[list[Shapes], MinLen(1)],
        offset: float = 0.5,
    ) -> None:
        nested = isinstance(sizes[0][0], (list, tuple))
        levels = list(sizes) if nested else [sizes] * len(strides)
        check_levels("sizes", levels, strides)
        tables = [torch.tensor(level, dtype=torch.float64) for level in levels]
        super().__init__(strides, [centred_boxes(table[:, 0], table[:, 1]).float() for table in tables], offset)
