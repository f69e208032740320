"""SIoU: overlap, distance, direction and shape (2205.12740)."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from detkit import boxes as box_ops
from detkit.losses.iou import OverlapLoss, centres, hull_sides, sides
from detkit.registry import BOX_LOSSES, NonNegative


@BOX_LOSSES.register()
class SIoULoss(OverlapLoss):
    """1 - IoU + (distance cost + shape cost) / 2, where distance costs less along an axis.

    The paper's angle cost 1 - 2 sin^2(arcsin(x) - pi/4), with x the sine of the angle of the line between
    the centres, is sin(2 angle) = 2 |dx dy| / (dx^2 + dy^2), which needs no case for angles above 45
    degrees.

    Args:
        theta: power of the shape cost, 2 to 6 in the paper.
        weight: factor on the sum.
    """

    def __init__(self, *, theta: Annotated[float, Ge(1)] = 4.0, weight: NonNegative = 1.0) -> None:
        super().__init__(weight=weight)
        self.theta = theta

    def costs(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        offset = (centres(predicted) - centres(boxes)) / hull_sides(predicted, boxes)
        gamma = 2 - angle_cost(centres(predicted) - centres(boxes))
        distance = (1 - torch.exp(-gamma[..., None] * offset.square())).sum(dim=-1)
        predicted_sides, true_sides = sides(predicted), sides(boxes)
        omega = (predicted_sides - true_sides).abs() / torch.maximum(predicted_sides, true_sides)
        shape = (1 - torch.exp(-omega)).pow(self.theta).sum(dim=-1)
        return 1 - box_ops.paired_iou(predicted, boxes) + (distance + shape) / 2


def angle_cost(offset: Tensor) -> Tensor:
    """Offset between two centres (..., 2) -> 0 along an axis (or for no offset) to 1 along a diagonal."""
    length = offset.square().sum(dim=-1)
    return 2 * offset.prod(dim=-1).abs() / length.masked_fill(length == 0, 1)
