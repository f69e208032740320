"""Anchors of stated widths and heights, as clustering a data set's boxes gives them (1612.08242, section 2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detkit.anchors.base import AnchorGenerator
from detkit.anchors.grid import centred_boxes, lay_over_grid
from detkit.registry import ANCHORS
from detkit.registry.arguments import LARGEST_SIDE, within


@ANCHORS.register()
class ExplicitAnchors(AnchorGenerator):
    """Anchors of given (width, height) in pixels of the network's input; `detkit anchors fit` finds them.

    sizes: a list of pairs for each level, finest first, or one list that serves every level. offset: centre
    of an anchor within its cell, in cells; the middle by default, for no published model wants another.
    Anchors of a cell come in the order given.
    """

    def __init__(
        self,
        *,
        strides: tuple[int, ...],
        sizes: list[tuple[float, float]] | list[list[tuple[float, float]]],
        offset: float = 0.5,
    ) -> None:
        super().__init__()
        nested = bool(sizes) and all(len(row) == 0 or isinstance(row[0], (list, tuple)) for row in sizes)
        levels = list(sizes) if nested else [sizes] * len(strides)
        if len(levels) != len(strides):
            raise ValueError(f"sizes: {len(levels)} lists for {len(strides)} levels of strides {list(strides)}")
        self.base = []
        for stride, level in zip(strides, levels, strict=True):
            table = torch.tensor([tuple(pair) for pair in level], dtype=torch.float64).reshape(-1, 2)  # type: ignore[arg-type]
            if not len(table) or not bool((table > 0).all()):
                raise ValueError(f"sizes: {list(level)} for stride {stride}: want pairs of positive numbers")
            within("sizes", table.flatten().tolist(), 0, 100 * LARGEST_SIDE)
            self.base.append(centred_boxes(table[:, 0], table[:, 1]).float())
        self.strides, self.offset = strides, offset
        self.per_cell = tuple(len(base) for base in self.base)

    def forward(
        self, level_shapes: Sequence[tuple[int, int]], image_shape: tuple[int, int], device: torch.device
    ) -> list[Tensor]:
        """See `AnchorGenerator.forward`."""
        return [
            lay_over_grid(base, shape, (stride, stride), self.offset, device)
            for base, shape, stride in zip(self.base, level_shapes, self.strides, strict=True)
        ]
