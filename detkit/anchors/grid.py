"""Base boxes, repeated over the cells of a feature map."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Annotated

import torch
from annotated_types import Interval, MinLen
from torch import Tensor

from detkit.anchors.base import AnchorGenerator

AspectRatios = Annotated[Sequence[Annotated[float, Interval(ge=1e-4, le=1e4)]], MinLen(1)]
"""Height over width of each anchor of a cell."""


class GridAnchors(AnchorGenerator):
    """The same boxes on every cell of a level.

    base: per level (n, 4) boxes around the origin. offset: centre of an anchor within its cell, in cells.
    """

    def __init__(self, strides: tuple[int, ...], base: list[Tensor], offset: float) -> None:
        super().__init__()
        self.strides, self.base, self.offset = strides, base, offset
        self.per_cell = tuple(map(len, base))

    def forward(
        self, level_shapes: Sequence[tuple[int, int]], image_shape: tuple[int, int], device: torch.device
    ) -> list[Tensor]:
        return [
            lay_over_grid(base, shape, (stride, stride), self.offset, device)
            for base, shape, stride in zip(self.base, level_shapes, self.strides, strict=True)
        ]


def check_levels(name: str, lists: Sized, strides: Sequence[int]) -> None:
    """Raises ValueError unless there is one of `lists` for each level."""
    if len(lists) != len(strides):
        raise ValueError(f"{name}: {len(lists)} lists, but there are {len(strides)} levels, of strides {list(strides)}")


def centred_boxes(widths: Tensor, heights: Tensor) -> Tensor:
    """Widths (N,) and heights (N,) in pixels -> (N, 4) xyxy boxes around the origin."""
    return torch.stack((-widths, -heights, widths, heights), dim=1) / 2


def lay_over_grid(
    base: Tensor, shape: tuple[int, int], stride: tuple[float, float], offset: float, device: torch.device
) -> Tensor:
    """Base boxes (n, 4) around the origin -> (H * W * n, 4) boxes around every cell of an (H, W) map.

    stride: pixels per cell (y, x). offset: where in a cell its anchors are centred, 0 the top left
    corner, 0.5 the middle.
    """
    y = (torch.arange(shape[0], device=device, dtype=torch.float32) + offset) * stride[0]
    x = (torch.arange(shape[1], device=device, dtype=torch.float32) + offset) * stride[1]
    yy, xx = torch.meshgrid(y, x, indexing="ij")
    centres = torch.stack((xx, yy, xx, yy), dim=-1).reshape(-1, 1, 4)
    return (centres + base.to(device)).reshape(-1, 4)
