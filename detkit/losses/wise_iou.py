"""Wise-IoU: the IoU loss, weighted by distance and by how unusual a box is (2301.10051)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor

from detkit import boxes as box_ops
from detkit.losses.iou import OverlapLoss, hull_sides
from detkit.registry import BOX_LOSSES, FractionAboveZero, NonNegative, Positive


@BOX_LOSSES.register()
class WiseIoULoss(OverlapLoss):
    """R (1 - IoU) with R = exp(distance of the centres^2 / diagonal of the hull^2) (equations 7 and 8).

    The diagonal is a constant to the gradient. v2 and v3 multiply by a factor r of b = (1 - IoU) / (running mean
    of 1 - IoU), a constant to the gradient too. The mean starts at 1 and moves once per step towards the mean over
    the positives of the global batch, so neither accumulation nor the number of processes changes it; it is part of
    the checkpoint.

    Args:
        version: `v1` has no factor. `v2` has r = b^gamma: bad boxes count more. `v3` has
            r = b / (delta alpha^(b - delta)) (equations 14 and 15): boxes that are very good or very bad, by the
            state of training, count less.
        gamma: power of v2.
        alpha: base of v3.
        delta: the b at which r of v3 is 1.
        momentum: fraction by which the mean moves per step.
        weight: factor on the sum.
    """

    mean: Tensor

    def __init__(
        self,
        *,
        version: Literal["v1", "v2", "v3"] = "v3",
        gamma: Positive = 0.5,
        alpha: Annotated[float, Gt(1)] = 1.9,
        delta: Positive = 3.0,
        momentum: FractionAboveZero = 0.01,
        weight: NonNegative = 1.0,
    ) -> None:
        super().__init__(weight=weight)
        self.version, self.gamma, self.alpha, self.delta, self.momentum = version, gamma, alpha, delta, momentum
        if version != "v1":
            self.register_buffer("mean", torch.ones(()))

    def costs(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        cost = 1 - box_ops.paired_iou(predicted, boxes)
        wise = distance_factor(predicted, boxes) * cost
        if self.version == "v1":
            return wise
        cost = cost.detach()
        if self.training:
            self.accumulate(torch.stack((cost.sum(), cost.new_tensor(len(cost)))))
        return self.focus(cost) * wise

    def focus(self, cost: Tensor) -> Tensor:
        """1 - IoU (P,) -> the factor r of each."""
        unusual = cost / self.mean.clamp(min=1e-6)
        if self.version == "v2":
            return unusual.pow(self.gamma)
        return unusual / (self.delta * self.alpha ** (unusual - self.delta))

    def end_step(self, totals: Tensor) -> None:
        """Moves the mean; a step without positives leaves it unchanged."""
        if self.version != "v1":
            total, count = totals.to(self.mean.dtype)
            moved = self.mean.lerp(total / count.clamp(min=1), self.momentum)
            self.mean.copy_(torch.where(count > 0, moved, self.mean))


def distance_factor(predicted: Tensor, boxes: Tensor) -> Tensor:
    """R of equation 8, 1 to e: (P, 4) and (P, 4) -> (P,)."""
    diagonal = hull_sides(predicted, boxes).square().sum(dim=-1).detach()
    return ((box_ops.centres(predicted) - box_ops.centres(boxes)).square().sum(dim=-1) / diagonal).exp()
