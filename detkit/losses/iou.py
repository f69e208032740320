"""Box losses in box space: one minus an overlap measure of decoded and true boxes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.coders.base import BoxCoder
from detkit.losses.base import BoxLoss
from detkit.registry import BOX_LOSSES, NonNegative, enforce_bounds

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

    def forward(self, deltas: Tensor, anchors: Tensor, boxes: Tensor, coder: BoxCoder) -> Tensor:
        predicted = make_valid(coder.decode(deltas.to(anchors.dtype), anchors))
        return self.weight * self.costs(predicted, boxes).sum()

    def costs(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        """Predicted and true boxes (P, 4) xyxy, both of positive area -> (P,) costs."""
        raise NotImplementedError


@BOX_LOSSES.register()
class IoULoss(OverlapLoss):
    """1 - IoU or -ln IoU (1608.01471, equation 2); neither has a gradient where the boxes don't overlap.

    Args:
        form: `linear` is 1 - IoU, `log` is -ln IoU.
        weight: factor on the sum.
    """

    def __init__(self, *, form: Literal["linear", "log"] = "linear", weight: NonNegative = 1.0) -> None:
        super().__init__(weight=weight)
        self.form = form

    def costs(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        iou = box_ops.paired_iou(predicted, boxes)
        return 1 - iou if self.form == "linear" else -iou.clamp(min=LEAST_IOU).log()


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
        distance = (centres(predicted) - centres(boxes)).square().sum(dim=-1) / square.sum(dim=-1)
        shape = ((sides(predicted) - sides(boxes)).square() / square).sum(dim=-1)
        return 1 - box_ops.paired_iou(predicted, boxes) + distance + shape


def make_valid(boxes: Tensor) -> Tensor:
    """(P, 4) without NaN -> boxes within `FAR` of zero with sides that are positive in float32; valid ones unchanged.

    An inverted or empty box becomes a point at its upper left corner, which has a loss and a gradient.
    """
    boxes = boxes.clamp(-FAR, FAR)
    corner = boxes[..., :2]
    least = 1e-3 + 1e-6 * corner.detach().abs()
    return torch.cat((corner, torch.maximum(boxes[..., 2:], corner + least)), dim=-1)


def sides(boxes: Tensor) -> Tensor:
    """(..., 4) -> (..., 2) width and height."""
    return boxes[..., 2:] - boxes[..., :2]


def centres(boxes: Tensor) -> Tensor:
    """(..., 4) -> (..., 2)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def hull_sides(a: Tensor, b: Tensor) -> Tensor:
    """Width and height (..., 2) of the smallest box around both."""
    return torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
