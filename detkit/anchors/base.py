"""The contract of an anchor generator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class AnchorGenerator(nn.Module):
    """Places boxes of fixed shapes on every cell of every level.

    The constructor gets `strides: tuple[int, ...]`, pixels per cell of each level (derived). `per_cell[l]` is the
    number of anchors per cell on level l.
    """

    per_cell: tuple[int, ...]

    def forward(
        self, level_shapes: Sequence[tuple[int, int]], image_shape: tuple[int, int], device: torch.device
    ) -> list[Tensor]:
        """Feature (H, W) of each level and the padded image's (H, W) -> per level (H * W * per_cell, 4).

        xyxy pixels, float32; row-major over cells, anchors of a cell next to each other.
        """
        raise NotImplementedError
