"""SSD's default boxes (1512.02325, section 2.2, "Choosing scales and aspect ratios")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Interval
from torch import Tensor

from detkit.anchors.base import AnchorGenerator
from detkit.anchors.grid import centred_boxes, lay_over_grid
from detkit.registry import ANCHORS, Positive, PositiveInt


@ANCHORS.register()
class SSDAnchors(AnchorGenerator):
    """Boxes whose sides are fractions of the image's: of width for x, of height for y (1512.02325, section 2.2).

    A cell of level k has a square of scale s_k, a square of scale sqrt(s_k * s_(k+1)), and for every
    aspect ratio r the two boxes of s_k * sqrt(r) by s_k / sqrt(r), the wide one first. Boxes are centred in the cells.

    Args:
        scales: s_k of each level and one more; null spaces them evenly from min_scale on the first to max_scale on
            the last level (equation 4), and the one more is 1.
        min_scale: scale of the first level, if `scales` is null.
        max_scale: scale of the last level, if `scales` is null.
        aspect_ratios: longer over shorter side, a list for each level; null is [2, 3] on all.
        steps: pixels per cell of each level; null is the image's side over the map's.
        clip: `sides` limits a box's sides to the image's, around its centre, as torchvision does; `corners` cuts
            the box at the image's border; null leaves it.
    """

    def __init__(
        self,
        *,
        strides: tuple[int, ...],
        scales: list[Positive] | None = None,
        min_scale: Positive = 0.2,
        max_scale: Annotated[float, Interval(gt=0, le=100)] = 0.9,
        aspect_ratios: list[list[Positive]] | None = None,
        steps: list[PositiveInt] | None = None,
        clip: Literal["sides", "corners"] | None = "sides",
    ) -> None:
        super().__init__()
        levels = len(strides)
        if scales is None:
            if min_scale > max_scale:
                raise ValueError(f"min_scale: {min_scale} must not exceed max_scale: {max_scale}")
            step = (max_scale - min_scale) / max(1, levels - 1)
            scales = [*(min_scale + step * k for k in range(levels)), 1.0]
        ratios = [[2.0, 3.0]] * levels if aspect_ratios is None else [list(level) for level in aspect_ratios]
        for name, values, want in (
            ("scales", scales, levels + 1), ("aspect_ratios", ratios, levels), ("steps", steps or strides, levels),
        ):  # fmt: skip
            if len(values) != want:
                raise ValueError(f"{name}: {len(values)} given, but {levels} levels need {want}")
        self.steps, self.clip = None if steps is None else tuple(steps), clip
        self.sides = [
            torch.tensor(_sides(s, following, level), dtype=torch.float64)
            for s, following, level in zip(scales[:-1], scales[1:], ratios, strict=True)
        ]
        self.per_cell = tuple(len(sides) for sides in self.sides)

    def forward(
        self, level_shapes: Sequence[tuple[int, int]], image_shape: tuple[int, int], device: torch.device
    ) -> list[Tensor]:
        height, width = image_shape
        anchors = []
        for k, (sides, shape) in enumerate(zip(self.sides, level_shapes, strict=True)):
            sides = sides.clamp(max=1.0) if self.clip == "sides" else sides
            base = centred_boxes(sides[:, 0] * width, sides[:, 1] * height).float()
            step = self.steps[k] if self.steps else 0
            stride = (float(step), float(step)) if step else (height / shape[0], width / shape[1])
            level = lay_over_grid(base, shape, stride, 0.5, device)
            if self.clip == "corners":
                level = level.clamp(min=0).minimum(level.new_tensor([width, height, width, height]))
            anchors.append(level)
        return anchors


def _sides(scale: float, following: float, ratios: Sequence[float]) -> list[tuple[float, float]]:
    """(width, height) of each box of a cell."""
    between = (scale * following) ** 0.5
    sides = [(scale, scale), (between, between)]
    for ratio in ratios:
        long, short = scale * ratio**0.5, scale / ratio**0.5
        sides += [(long, short), (short, long)]
    return sides
