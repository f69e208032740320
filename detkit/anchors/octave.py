"""RetinaNet's anchors: scales within an octave times aspect ratios, per level (1708.02002, section 4)."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Interval

from detkit.anchors.grid import AspectRatios, GridAnchors, centred_boxes
from detkit.registry import ANCHORS
from detkit.registry.bounds import LARGEST_SIDE


@ANCHORS.register()
class OctaveAnchors(GridAnchors):
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
        base = []
        ratios = torch.tensor(list(aspect_ratios), dtype=torch.float64)
        for stride in strides:
            sides = [base_scale * stride * 2 ** (i / scales_per_octave) for i in range(scales_per_octave)]
            sizes = torch.tensor(sides, dtype=torch.float64)[:, None]
            widths, heights = sizes / ratios.sqrt(), sizes * ratios.sqrt()
            base.append(centred_boxes(widths.flatten(), heights.flatten()).float())
        super().__init__(strides, base, offset)
