"""Anchors of fixed shapes on every cell: RetinaNet's (1708.02002, section 4) and given ones (1612.08242, section 2)."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Annotated, Literal

import torch
from annotated_types import Interval, MinLen
from torch import Tensor

from detkit.anchors.base import AnchorGenerator
from detkit.registry import ANCHORS
from detkit.registry.bounds import LARGEST_SIDE
from detkit.utils.console import plural

AspectRatios = Annotated[Sequence[Annotated[float, Interval(ge=1e-4, le=1e4)]], MinLen(1)]
"""Height over width of each anchor of a cell."""
Pixels = Annotated[float, Interval(gt=0, le=100 * LARGEST_SIDE)]
Shapes = Annotated[list[tuple[Pixels, Pixels]], MinLen(1)]
"""(width, height) of the anchors of a level."""


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


@ANCHORS.register()
class OctaveAnchors(GridAnchors):
    """Anchors of side `base_scale * stride * 2^(i / scales_per_octave)`, in every aspect ratio (1708.02002, section 4).

    A level of stride 8 with the defaults has sides 32, 40.3 and 50.8 px (square root of the area).

    Args:
        base_scale: side of the smallest anchor, in strides.
        scales_per_octave: anchors between one side and its double.
        aspect_ratios: height over width.
        order: anchors of a cell one `scale` after another, as in torchvision and Detectron2, or one `ratio` after
            another, as in MMDetection; it matters to weights that were trained elsewhere only.
        offset: centre of an anchor within its cell, in cells; 0 as in Detectron2 and torchvision, 0.5 in MMDetection.
    """

    def __init__(
        self,
        *,
        strides: tuple[int, ...],
        base_scale: Annotated[float, Interval(ge=1e-3, le=LARGEST_SIDE)] = 4.0,
        scales_per_octave: Annotated[int, Interval(ge=1, le=64)] = 3,
        aspect_ratios: AspectRatios = (0.5, 1.0, 2.0),
        order: Literal["scale", "ratio"] = "scale",
        offset: Annotated[float, Interval(ge=-1, le=1)] = 0.0,
    ) -> None:
        base = []
        ratios = torch.tensor(list(aspect_ratios), dtype=torch.float64)
        for stride in strides:
            sides = [base_scale * stride * 2 ** (i / scales_per_octave) for i in range(scales_per_octave)]
            sizes = torch.tensor(sides, dtype=torch.float64)[:, None]
            widths, heights = sizes / ratios.sqrt(), sizes * ratios.sqrt()
            if order == "ratio":
                widths, heights = widths.t(), heights.t()
            base.append(centred_boxes(widths.flatten(), heights.flatten()).float())
        super().__init__(strides, base, offset)


@ANCHORS.register()
class ExplicitAnchors(GridAnchors):
    """Anchors of given width and height in pixels of the network's input; `detkit anchors fit` finds them.

    Source: 1612.08242, section 2.

    Args:
        sizes: (width, height) pairs, in pixels, one list for each level, finest first, or one list for every level. The
            anchors of a cell are in this order.
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


def check_levels(name: str, lists: Sized, strides: Sequence[int]) -> None:
    """Raises ValueError unless there is one of `lists` for each level."""
    if len(lists) != len(strides):
        lengths = f"{plural(len(lists), 'list')} for {plural(len(strides), 'level')}"
        raise ValueError(f"{name}: {lengths}, of strides {list(strides)}")


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
