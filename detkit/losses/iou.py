"""Box losses in box space: one minus an overlap measure of decoded and true boxes."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from detkit import boxes as box_ops
from detkit.coders.base import BoxCoder
from detkit.losses.base import BoxLoss, weighted_sum
from detkit.registry import BOX_LOSSES, FractionAboveZero, NonNegative, Positive, enforce_bounds

FAR = 1e7
"""Limit of predicted coordinates in pixels, so that no square of one overflows float32."""
LEAST_IOU = 1e-6
"""Smallest IoU of the log form, whose value would be infinite where boxes don't overlap."""


@enforce_bounds
class OverlapLoss(BoxLoss):
    """Decodes the predicted boxes, makes them valid, and sums `costs`.

    Args:
        weight: factor on the sum.
    """

    def __init__(self, *, weight: NonNegative = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(
        self, deltas: Tensor, anchors: Tensor, boxes: Tensor, coder: BoxCoder, weights: Tensor | None = None
    ) -> Tensor:
        predicted = make_valid(coder.decode(deltas.to(anchors.dtype), anchors))
        return self.weight * weighted_sum(self.costs(predicted, boxes), weights)

    def costs(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        """Predicted and true boxes (P, 4) xyxy, both of positive area -> (P,) costs."""
        raise NotImplementedError


@BOX_LOSSES.register()
class IoULoss(OverlapLoss):
    """1 - IoU or -ln IoU (1608.01471, equation 2); neither has a gradient where the boxes don't overlap.

    Args:
        form: `linear` is 1 - IoU, `log` is -ln IoU, `square` is 1 - IoU^2 (the code of YOLOX's authors, 2107.08430).
        weight: factor on the sum.
    """

    def __init__(self, *, form: Literal["linear", "log", "square"] = "linear", weight: NonNegative = 1.0) -> None:
        super().__init__(weight=weight)
        self.form = form

    def costs(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        iou = box_ops.paired_iou(predicted, boxes)
        if self.form == "log":
            return -iou.clamp(min=LEAST_IOU).log()
        return 1 - (iou if self.form == "linear" else iou.square())


class TorchvisionOverlapLoss(OverlapLoss):
    """A loss of `torchvision.ops`; a subclass names the function."""

    function: str

    def costs(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        from torchvision import ops  # not above: it takes seconds that reading a config must not cost

        costs: Tensor = getattr(ops, self.function)(predicted, boxes)
        return costs


@BOX_LOSSES.register()
class GIoULoss(TorchvisionOverlapLoss):
    """1 - generalised IoU (1902.09630, algorithm 1), by torchvision.

    Args:
        weight: factor on the sum.
    """

    function = "generalized_box_iou_loss"


@BOX_LOSSES.register()
class DIoULoss(TorchvisionOverlapLoss):
    """1 - IoU + (distance of the centres / diagonal of the hull)^2 (1911.08287, equation 7), by torchvision.

    Args:
        weight: factor on the sum.
    """

    function = "distance_box_iou_loss"


@BOX_LOSSES.register()
class CIoULoss(TorchvisionOverlapLoss):
    """The distance IoU loss with a term for the aspect ratio (1911.08287, equation 10), by torchvision.

    The weight of that term, the paper's alpha, is a constant to the gradient.

    Args:
        weight: factor on the sum.
    """

    function = "complete_box_iou_loss"


@BOX_LOSSES.register()
class EIoULoss(OverlapLoss):
    """The distance IoU loss with the differences of width and height, each over the hull's (2101.08158, equation 9).

    Args:
        weight: factor on the sum.
    """

    def costs(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        square = hull_sides(predicted, boxes).square()
        distance = (box_ops.centres(predicted) - box_ops.centres(boxes)).square().sum(dim=-1) / square.sum(dim=-1)
        shape = ((box_ops.sides(predicted) - box_ops.sides(boxes)).square() / square).sum(dim=-1)
        return 1 - box_ops.paired_iou(predicted, boxes) + distance + shape


@BOX_LOSSES.register()
class SIoULoss(OverlapLoss):
    """1 - IoU + (distance cost + shape cost) / 2 (2205.12740), where distance costs less along an axis.

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
        offset = (box_ops.centres(predicted) - box_ops.centres(boxes)) / hull_sides(predicted, boxes)
        gamma = 2 - angle_cost(box_ops.centres(predicted) - box_ops.centres(boxes))
        distance = (1 - torch.exp(-gamma[..., None] * offset.square())).sum(dim=-1)
        predicted_sides, true_sides = box_ops.sides(predicted), box_ops.sides(boxes)
        omega = (predicted_sides - true_sides).abs() / torch.maximum(predicted_sides, true_sides)
        shape = (1 - torch.exp(-omega)).pow(self.theta).sum(dim=-1)
        return 1 - box_ops.paired_iou(predicted, boxes) + (distance + shape) / 2


@BOX_LOSSES.register()
class WiseIoULoss(OverlapLoss):
    """R (1 - IoU) with R = exp(distance of the centres^2 / diagonal of the hull^2) (2301.10051, equations 7, 8).

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


def make_valid(boxes: Tensor) -> Tensor:
    """(P, 4) without NaN -> boxes within `FAR` of zero with sides that are positive in float32; valid ones unchanged.

    An inverted or empty box becomes a point at its upper left corner, which has a loss and a gradient.
    """
    boxes = boxes.clamp(-FAR, FAR)
    corner = boxes[..., :2]
    least = 1e-3 + 1e-6 * corner.detach().abs()
    return torch.cat((corner, torch.maximum(boxes[..., 2:], corner + least)), dim=-1)


def hull_sides(a: Tensor, b: Tensor) -> Tensor:
    """Width and height (..., 2) of the smallest box around both."""
    return torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])


def angle_cost(offset: Tensor) -> Tensor:
    """Offset between two centres (..., 2) -> 0 along an axis (or for no offset) to 1 along a diagonal."""
    length = offset.square().sum(dim=-1)
    return 2 * offset.prod(dim=-1).abs() / length.masked_fill(length == 0, 1)


def distance_factor(predicted: Tensor, boxes: Tensor) -> Tensor:
    """R of equation 8, 1 to e: (P, 4) and (P, 4) -> (P,)."""
    diagonal = hull_sides(predicted, boxes).square().sum(dim=-1).detach()
    return ((box_ops.centres(predicted) - box_ops.centres(boxes)).square().sum(dim=-1) / diagonal).exp()
