"""The box parametrisation of R-CNN (1311.2524, appendix C)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.coders.base import BoxCoder
from detkit.registry import CODERS, Positive


@CODERS.register()
class DeltaCoder(BoxCoder):
    """Centre offsets in units of the anchor's sides, and log ratios of the sides (1311.2524, appendix C).

    Args:
        weights: factors on the deltas x, y, width and height.
        max_side_ratio: limit of a decoded side over the anchor's, so that an early wild prediction cannot overflow;
            62.5 is the 1000 / 16 of Detectron and torchvision.
        max_shift: limit in pixels of a decoded centre's distance from the anchor's, in x and in y (YOLOF, 2103.09460);
            null: none.
    """

    def __init__(
        self,
        *,
        weights: tuple[Positive, Positive, Positive, Positive] = (1.0, 1.0, 1.0, 1.0),
        max_side_ratio: Positive = 62.5,
        max_shift: Positive | None = None,
    ) -> None:
        super().__init__()
        self.weights = tuple(weights)
        self.max_log_ratio, self.max_shift = math.log(max_side_ratio), max_shift

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        anchor_sides, sides = box_ops.sides(anchors), box_ops.sides(boxes)
        offset = (boxes[..., :2] + 0.5 * sides - anchors[..., :2] - 0.5 * anchor_sides) / anchor_sides
        deltas = torch.cat((offset, (sides / anchor_sides).log()), dim=-1)
        return deltas * deltas.new_tensor(self.weights)

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        deltas = deltas / deltas.new_tensor(self.weights)
        anchor_sides = box_ops.sides(anchors)
        shift = deltas[..., :2] * anchor_sides
        if self.max_shift is not None:
            shift = shift.clamp(-self.max_shift, self.max_shift)
        centres = anchors[..., :2] + 0.5 * anchor_sides + shift
        half = 0.5 * deltas[..., 2:].clamp(max=self.max_log_ratio).exp() * anchor_sides
        return torch.cat((centres - half, centres + half), dim=-1)
