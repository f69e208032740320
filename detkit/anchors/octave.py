"""RetinaNet's anchors: scales within an octave times aspect ratios, per level (1708.02002, section 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detkit.anchors.base import AnchorGenerator
from detkit.anchors.grid import centred_boxes, lay_over_grid
from detkit.registry import ANCHORS
from detkit.registry.arguments import LARGEST_SIDE, within


@ANCHORS.register()
class OctaveAnchors(AnchorGenerator):
    """Anchors of side `base_scale * stride * 2^(i / scales_per_octave)`, in every aspect ratio.

    A level of stride 8 with the defaults has sides 32, 40.3 and 50.8 px (square root of the area).
    aspect_ratios: height over width. offset: centre of an anchor within its cell, in cells; 0 as in
    Detectron2 and torchvision, 0.5 in MMDetection. Order within a cell: scale by scale, ratios inside.
    """

    def __init__(
        self,
        *,
        strides: tuple[int, ...],
        base_scale: float = 4.0,
        scales_per_octave: int = 3,
        aspect_ratios: list[float] = [0.5, 1.0, 2.0],  # noqa: B006  (only read)
        offset: float = 0.0,
    ) -> None:
        super().__init__()
        within("scales_per_octave", scales_per_octave, 1, 64)
        within("base_scale", base_scale, 1e-3, LARGEST_SIDE)
        within("offset", offset, -1, 1)
        if not aspect_ratios or min(aspect_ratios) <= 0:
            raise ValueError(f"aspect_ratios: {list(aspect_ratios)} must be a list of positive numbers")
        within("aspect_ratios", list(aspect_ratios), 1e-4, 1e4)
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
        """See `AnchorGenerator.forward`."""
        return [
            lay_over_grid(base, shape, (stride, stride), self.offset, device)
            for base, shape, stride in zip(self.base, level_shapes, self.strides, strict=True)
        ]
