"""RetinaNet's anchors: scales within an octave times aspect ratios, per level (1708.02002, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from detkit.anchors.base import AnchorGenerator
from detkit.anchors.grid import AspectRatios, centred_boxes, lay_over_grid
from detkit.registry import ANCHORS
from detkit.registry.bounds import LARGEST_SIDE


@ANCHORS.register()
class OctaveAnchors(AnchorGenerator):
    """Anchors of side `base_scale * stride * 2^(i / scales_per_octave)`, in every aspect ratio.

    A level of stride 8 with the defaults has sides 32, 40.3 and 50.8 px (square root of the area).
    Order within a cell: scale by scale, ratios inside.

    Args:
        base_scale: side of the smallest anchor, in strides.
        scales_per_octave: anchors between one side and its double.
        aspect_ratios: height over width.
        offset: centre of an anchor within its cell, in cells; 0 as in Detectron2 and torchvision, 0.5 in MMDetection.
    """

    def __init__(
        self,
        *,
        strides: tuple[int, ...],
        base_scale: Annotated[float, Interval(ge=1e-3, le=LARGEST_SIDE)] = 4.0,
        scales_per_octave: Annotated[int, Interval(ge=1, le=64)] = 3,
        aspect_ratios: AspectRatios = (0.5, 1.0, 2.0),
        offset: Annotated[float, Interval(ge=-1, le=1)] = 0.0,
    ) -> None:
        super().__init__()
        self.strides, self.offset = strides, offset
        self.base = []
        ratios = torch.tensor(list(aspect_ratios), dtype=torch.float64)
        for stride in strides:
            sides = [base_scale * stride * 2 ** (i / scales_per_octave) for i in range(scales_per_octave)]
            sizes = torch.tensor(sides, dtype=torch.float64)[:, None]
            widths, heights = sizes / ratios.sqrt(), sizes * ratios.sqrt()
            self.base.append(centred_boxes(widths.flatten(), heights.flatten()).float())
        self.per_cell = (scales_per_octave * len(ratios),) * len(strides)

    def forward(
        self, level_shapes: Sequence[tuple[int, int]], image_shape: tuple[int, int], device: torch.device
    ) -> list[Tensor]:
        return [
            lay_over_grid(base, shape, (stride, stride), self.offset, device)
            for base, shape, stride in zip(self.base, level_shapes, self.strides, strict=True)
        ]
