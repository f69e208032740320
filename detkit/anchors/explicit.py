"""Anchors of given widths and heights, as clustering a data set's boxes gives them (1612.08242, section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Interval, MinLen
from torch import Tensor

from detkit.anchors.base import AnchorGenerator
from detkit.anchors.grid import centred_boxes, lay_over_grid
from detkit.registry import ANCHORS
from detkit.registry.bounds import LARGEST_SIDE
from detkit.utils.console import plural

Pixels = Annotated[float, Interval(gt=0, le=100 * LARGEST_SIDE)]
Shapes = Annotated[list[tuple[Pixels, Pixels]], MinLen(1)]
"""(width, height) of the anchors of a level."""


@ANCHORS.register()
class ExplicitAnchors(AnchorGenerator):
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
        super().__init__()
        nested = isinstance(sizes[0][0], (list, tuple))
        levels = list(sizes) if nested else [sizes] * len(strides)
        if len(levels) != len(strides):
            raise ValueError(
                f"sizes: {plural(len(levels), 'list')} for {plural(len(strides), 'level')}, of strides {list(strides)}"
            )
        self.base = []
        for level in levels:
            table = torch.tensor(level, dtype=torch.float64)
            self.base.append(centred_boxes(table[:, 0], table[:, 1]).float())
        self.strides, self.offset = strides, offset
        self.per_cell = tuple(len(base) for base in self.base)

    def forward(
        self, level_shapes: Sequence[tuple[int, int]], image_shape: tuple[int, int], device: torch.device
    ) -> list[Tensor]:
        return [
            lay_over_grid(base, shape, (stride, stride), self.offset, device)
            for base, shape, stride in zip(self.base, level_shapes, self.strides, strict=True)
        ]
