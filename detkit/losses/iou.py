"""Box losses in box space: one minus an overlap measure of decoded and true boxes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.coders.base import BoxCoder
from detkit.losses.base import BoxLoss
from detkit.registry import BOX_LOSSES
from detkit.registry.arguments import LARGEST_FLOAT, within

FAR = 1e7
"""Predicted coordinates in pixels end here, so that no square of one overflows float32."""
LEAST_IOU = 1e-6
"""The log form counts a smaller IoU as this one; apart from that its gradient is zero where nothing overlaps."""


class OverlapLoss(BoxLoss):
    """Decodes, makes the boxes fit to compute with, adds up `costs`. weight: factor on the sum."""

    def __init__(self, *, weight: float = 1.0) -> None:
        super().__init__()
        within("weight", weight, 0, LARGEST_FLOAT)
        self.weight = weight

    def forward(self, deltas: Tensor, anchors: Tensor, boxes: Tensor, coder: BoxCoder) -> Tensor:
        """See `BoxLoss.forward`."""
        predicted = make_valid(coder.decode(deltas.to(anchors.dtype), anchors))
        return self.weight * self.costs(predicted, boxes).sum()

    def costs(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        """Predicted and true boxes (P, 4) xyxy, both of positive area -> (P,) what each costs."""
        raise NotImplementedError


@BOX_LOSSES.register()
class IoULoss(OverlapLoss):
    """1 - IoU ("linear") or -ln IoU ("log", 1608.01471, equation 2). weight: factor on the sum.

    Neither has a gradient where the boxes don't overlap.
    """

    def __init__(self, *, form: Literal["linear", "log"] = "linear", weight: float = 1.0) -> None:
        super().__init__(weight=weight)
        self.form = form

    def costs(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        """See `OverlapLoss.costs`."""
        iou = box_ops.paired_iou(predicted, boxes)
        return 1 - iou if self.form == "linear" else -iou.clamp(min=LEAST_IOU).log()


@BOX_LOSSES.register()
class GIoULoss(OverlapLoss):
    """1 - generalised IoU (1902.09630, algorithm 1), by torchvision. weight: factor on the sum."""

    def costs(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        """See `OverlapLoss.costs`."""
        from torchvision.ops import generalized_box_iou_loss

        costs: Tensor = generalized_box_iou_loss(predicted, boxes)
        return costs


@BOX_LOSSES.register()
class DIoULoss(OverlapLoss):
    """1 - IoU + (distance of the centres / diagonal of the hull)^2 (1911.08287, equation 7), by torchvision.

    weight: factor on the sum.
    """

    def costs(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        """See `OverlapLoss.costs`."""
        from torchvision.ops import distance_box_iou_loss

        costs: Tensor = distance_box_iou_loss(predicted, boxes)
        return costs


@BOX_LOSSES.register()
class CIoULoss(OverlapLoss):
    """The distance IoU loss and a term for the aspect ratio (1911.08287, equation 10), by torchvision.

    The aspect ratio's weight, the paper's alpha, is a constant to the gradient. weight: factor on the sum.
    """

    def costs(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        """See `OverlapLoss.costs`."""
        from torchvision.ops import complete_box_iou_loss

        costs: Tensor = complete_box_iou_loss(predicted, boxes)
        return costs


@BOX_LOSSES.register()
class EIoULoss(OverlapLoss):
    """The distance IoU loss and the differences of width and height, each over the hull's (2101.08158, equation 9).

    weight: factor on the sum.
    """

    def costs(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        """See `OverlapLoss.costs`."""
        square = hull_sides(predicted, boxes).square()
        distance = (centres(predicted) - centres(boxes)).square().sum(dim=-1) / square.sum(dim=-1)
        shape = ((sides(predicted) - sides(boxes)).square() / square).sum(dim=-1)
        return 1 - box_ops.paired_iou(predicted, boxes) + distance + shape


def make_valid(boxes: Tensor) -> Tensor:
    """Any (P, 4) without NaN -> boxes within `FAR` of zero whose sides are positive in float32; others unchanged.

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
