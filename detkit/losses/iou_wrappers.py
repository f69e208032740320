"""Box losses that put another IoU into a loss: of inner boxes (2311.02877), or stretched (2401.10525)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from detkit import boxes as box_ops
from detkit.losses.iou import OverlapLoss
from detkit.registry import BOX_LOSSES, BoxLossNode, FractionAboveZero, FractionBelowOne, NonNegative, enforce_bounds


@enforce_bounds
class OtherIoULoss(OverlapLoss):
    """A loss over boxes, plus IoU, minus the other IoU that a subclass computes.

    Args:
        base: the loss, any that compares boxes; its weight must be 1.
        weight: factor on the sum.
    """

    def __init__(self, *, base: BoxLossNode, weight: NonNegative = 1.0) -> None:
        super().__init__(weight=weight)
        self.base = build_overlap_loss(base, type(self).__name__)

    def costs(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        iou = box_ops.paired_iou(predicted, boxes)
        return self.base.costs(predicted, boxes) + iou - self.other_iou(predicted, boxes, iou)

    def other_iou(self, predicted: Tensor, boxes: Tensor, iou: Tensor) -> Tensor:
        """Predicted and true boxes (P, 4) and their IoU (P,) -> (P,)."""
        raise NotImplementedError

    def take_accumulated(self) -> Tensor:
        return self.base.take_accumulated()

    def end_step(self, totals: Tensor) -> None:
        self.base.end_step(totals)


@BOX_LOSSES.register()
class InnerIoULoss(OtherIoULoss):
    """Another box loss with the IoU of inner boxes: L + IoU - IoU of both boxes scaled about their own centres.

    At ratio 1 it is the loss itself. Inner boxes (below 1) overlap less, so that good boxes get more gradient, and
    outer ones (above 1) more, so that bad boxes do.

    Source: 2311.02877.

    Args:
        base: the loss, any that compares boxes; its weight must be 1.
        ratio: sides of the scaled boxes over those of the boxes; 0.7 to 1.25 in the paper's experiments.
        weight: factor on the sum.
    """

    def __init__(
        self, *, base: BoxLossNode, ratio: Annotated[float, Interval(ge=0.5, le=1.5)] = 0.7, weight: NonNegative = 1.0
    ) -> None:
        super().__init__(base=base, weight=weight)
        self.ratio = ratio

    def other_iou(self, predicted: Tensor, boxes: Tensor, iou: Tensor) -> Tensor:
        return box_ops.paired_iou(scaled(predicted, self.ratio), scaled(boxes, self.ratio))


@BOX_LOSSES.register()
class FocalerIoULoss(OtherIoULoss):
    """Another box loss with a stretched IoU: L + IoU - clamp((IoU - lower) / (upper - lower), 0, 1).

    With lower 0 and upper 1 it is the loss itself. The loss focuses on the boxes whose IoU is between `lower` and
    `upper`.

    Source: 2401.10525.

    Args:
        base: the loss, any that compares boxes; its weight must be 1.
        lower: IoU up to which the stretched one is 0, the paper's d.
        upper: IoU from which on the stretched one is 1, the paper's u.
        weight: factor on the sum.
    """

    def __init__(
        self,
        *,
        base: BoxLossNode,
        lower: FractionBelowOne = 0.0,
        upper: FractionAboveZero = 0.95,
        weight: NonNegative = 1.0,
    ) -> None:
        super().__init__(base=base, weight=weight)
        if lower >= upper:
            raise ValueError(f"lower: {lower} must be less than upper, {upper}")
        self.lower, self.upper = lower, upper

    def other_iou(self, predicted: Tensor, boxes: Tensor, iou: Tensor) -> Tensor:
        return ((iou - self.lower) / (self.upper - self.lower)).clamp(0, 1)


def scaled(boxes: Tensor, ratio: float) -> Tensor:
    """(P, 4) -> boxes of the same centres with sides times `ratio`."""
    centres, half = box_ops.centres(boxes), box_ops.sides(boxes) * (ratio / 2)
    return torch.cat((centres - half, centres + half), dim=-1)


def build_overlap_loss(base: BoxLossNode | OverlapLoss, wrapper: str) -> OverlapLoss:
    """The box loss of a config node; one that is built already stays.

    wrapper: name of the part that takes it. Raises ValueError if it does not compare boxes, or has a weight of its own.
    """
    try:
        loss: OverlapLoss = BOX_LOSSES.build(base) if isinstance(base, Mapping) else base
    except ValueError as error:
        raise ValueError(f"base: {error}") from error
    name = type(loss).__name__
    if not hasattr(loss, "costs"):
        raise ValueError(f"base: {name} compares deltas; must be a loss that compares boxes, such as CIoULoss")
    if loss.weight != 1:
        raise ValueError(f"base.weight: {loss.weight} must be 1: the weight of {wrapper} is the factor on the sum")
    return loss
