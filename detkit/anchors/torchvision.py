"""torchvision's anchors, for weights that were trained with them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import MinLen
from torch import Tensor

from detkit.anchors.base import AnchorGenerator
from detkit.anchors.grid import AspectRatios, check_levels
from detkit.registry import ANCHORS, Side


@ANCHORS.register()
class TorchvisionAnchors(AnchorGenerator):
    """torchvision's `AnchorGenerator`, sizes in pixels per level.

    It differs from `OctaveAnchors` in three ways: corners are rounded to whole pixels, the anchors of a
    cell are ordered ratio by ratio with the sizes inside, and the stride of a level is the padded image's
    side over the map's, rounded down, rather than the level's own (106 instead of 128 px for a map
    of 3 cells over 320 px).

    Args:
        sizes: square roots of the areas, in pixels, a list per level; null: those of torchvision's RetinaNet, 32 to 512
            px and two steps of a third of an octave, cut to whole pixels.
        aspect_ratios: height over width.
    """

    def __init__(
        self,
        *,
        strides: tuple[int, ...],
        sizes: list[Annotated[list[Side], MinLen(1)]] | None = None,
        aspect_ratios: AspectRatios = (0.5, 1.0, 2.0),
    ) -> None:
        super().__init__()
        from torchvision.models.detection.anchor_utils import AnchorGenerator as Generator

        if sizes is None:
            sizes = [[int(4 * s * 2 ** (i / 3)) for i in range(3)] for s in strides]
        check_levels("sizes", sizes, strides)
        self.generator = Generator(tuple(tuple(level) for level in sizes), (tuple(aspect_ratios),) * len(strides))
        self.per_cell = tuple(self.generator.num_anchors_per_location())

    def forward(
        self, level_shapes: Sequence[tuple[int, int]], image_shape: tuple[int, int], device: torch.device
    ) -> list[Tensor]:
        strides = [
            [torch.tensor(image_shape[0] // h, device=device), torch.tensor(image_shape[1] // w, device=device)]
            for h, w in level_shapes
        ]
        generator = copy.copy(self.generator)  # setting the cells' boxes changes it, and other threads may use it
        generator.set_cell_anchors(torch.float32, device)
        anchors: list[Tensor] = generator.grid_anchors([list(shape) for shape in level_shapes], strides)
        return anchors
