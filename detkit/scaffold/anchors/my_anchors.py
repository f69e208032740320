"""An anchor generator: boxes of fixed shapes on every cell of every level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import MinLen
from torch import Tensor

from detkit.anchors.base import AnchorGenerator
from detkit.anchors.grid import centred_boxes, lay_over_grid
from detkit.registry import ANCHORS, Positive


@ANCHORS.register()
class MyAnchors(AnchorGenerator):
    """Squares in the middle of every cell.

    Args:
        strides: of the neck's levels.
        scales: sides of the squares, in strides of the level.
    """

    # detkit hands in `strides`; the others are the keys of the config. Their types say the bounds.
    def __init__(
        self, *, strides: tuple[int, ...], scales: Annotated[tuple[Positive, ...], MinLen(1)] = (2.0, 2.5, 3.2)
    ) -> None:
        super().__init__()
        self.strides = strides

        # Change from here: the shapes of each level, as widths and heights in pixels.
        self.shapes = []
        for stride in strides:
            sides = torch.tensor(scales) * stride
            self.shapes.append(centred_boxes(sides, sides))

        # Anchors per cell, level by level: the head predicts as many boxes.
        self.per_cell = tuple(len(shapes) for shapes in self.shapes)

    def forward(
        self, level_shapes: Sequence[tuple[int, int]], image_shape: tuple[int, int], device: torch.device
    ) -> list[Tensor]:
        """Feature (H, W) of each level -> per level (H * W * per_cell, 4) xyxy pixels, row by row of cells."""
        return [
            lay_over_grid(shapes, level, (stride, stride), 0.5, device)
            for shapes, level, stride in zip(self.shapes, level_shapes, self.strides, strict=True)
        ]
