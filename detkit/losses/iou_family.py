"""More overlap losses: alpha-IoU, MPDIoU, Shape-IoU and Powerful-IoU."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from detkit import boxes as box_ops
from detkit.losses.iou import LEAST_IOU, OverlapLoss, hull_sides
from detkit.registry import BOX_LOSSES, NonNegative, Positive, Side


@BOX_LOSSES.register()
class AlphaIoULoss(OverlapLoss):
    """1 - IoU^alpha (2110.13675): above 1, alpha gives good boxes more loss and gradient than bad ones.

    At alpha 1 it is `IoULoss`. It has no gradient where the boxes don't overlap.

    Args:
        alpha: power of the IoU; 3 is the paper's choice for all its data sets.
        weight: factor on the sum.
    """

    def __init__(self, *, alpha: Positive = 3.0, weight: NonNegative = 1.0) -> None:
        super().__init__(weight=weight)
        self.alpha = alpha

    def costs(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        iou = box_ops.paired_iou(predicted, boxes)
        # Below LEAST_IOU a line: for alpha < 1 the slope of the power would be infinite at 0.
        least = iou.clamp(min=LEAST_IOU)
        return 1 - least.pow(self.alpha) * (iou / least)


@BOX_LOSSES.register()
class MPDIoULoss(OverlapLoss):
    """1 - IoU + (d1^2 + d2^2) / (width^2 + height^2), with the image's width and height (2307.07662).

    d1 and d2 are the distances between the two top left and between the two bottom right corners. For boxes of equal
    size it is 1 - IoU + 2 (distance of the centres / diagonal of the image)^2. The divisor is that of the input image:
    variants that divide by the diagonal of the hull are other losses. A box loss does not see the image, so its
    size is an argument and the same for all images: where the network sees several sizes, as with the hook
    `MultiScale`, give the usual one.

    Args:
        height: height of the image as the network sees it, pixels.
        width: width of the image as the network sees it, pixels.
        weight: factor on the sum.
    """

    def __init__(self, *, height: Side, width: Side, weight: NonNegative = 1.0) -> None:
        super().__init__(weight=weight)
        self.height, self.width = height, width

    def costs(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        corners = (predicted - boxes).square().sum(dim=-1)
        return 1 - box_ops.paired_iou(predicted, boxes) + corners / (self.height**2 + self.width**2)


@BOX_LOSSES.register()
class ShapeIoULoss(OverlapLoss):
    """1 - IoU + distance + shape / 2, both weighted by the shape of the true box (2312.17663).

    With true sides w and h, ww = 2 w^s / (w^s + h^s) and hh = 2 h^s / (w^s + h^s):
    distance = (hh dx^2 + ww dy^2) / (diagonal of the hull)^2, and
    shape = (1 - exp(-hh |dw| / larger width))^4 + (1 - exp(-ww |dh| / larger height))^4.
    So an error along the short side costs more. At s = 0, where ww = hh = 1, it is `DIoULoss` plus half the shape
    cost of `SIoULoss`.

    Args:
        scale: the power s, which the paper chooses by the sizes of the objects in the data set.
        weight: factor on the sum.
    """

    def __init__(self, *, scale: NonNegative = 0.0, weight: NonNegative = 1.0) -> None:
        super().__init__(weight=weight)
        self.scale = scale

    def costs(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        sides, true = box_ops.sides(predicted), box_ops.sides(boxes)
        factors = 2 * torch.sigmoid(self.scale * (true.flip(-1).log() - true.log()))  # hh, ww
        offset = box_ops.centres(predicted) - box_ops.centres(boxes)
        distance = (factors * offset.square()).sum(dim=-1) / hull_sides(predicted, boxes).square().sum(dim=-1)
        omega = factors * (sides - true).abs() / torch.maximum(sides, true)
        shape = (1 - torch.exp(-omega)).pow(4).sum(dim=-1)
        return 1 - box_ops.paired_iou(predicted, boxes) + distance + shape / 2


@BOX_LOSSES.register()
class PIoULoss(OverlapLoss):
    """Powerful-IoU: 2 - IoU - exp(-P^2), where P is the mean distance of the edges over the true sides.

    The divisor is the true box, so that a predicted box does not get better by growing, as it may where the hull
    divides. v1 is that loss. v2, with x = focus exp(-P), is 3 x exp(-x^2) times it: boxes of medium quality, where
    x = 1 / sqrt(2), count most. The gradient goes through the factor too, as in the authors' code. Far from the
    object v2 falls to 0, with its gradient.

    Source: Liu et al., Powerful-IoU: more straightforward and faster bounding box regression loss with a nonmonotonic
    focusing mechanism, Neural Networks 170, 2024.

    Args:
        version: `v1` has no factor, `v2` has the factor.
        focus: the paper's lambda, used by v2.
        weight: factor on the sum.
    """

    def __init__(
        self, *, version: Literal["v1", "v2"] = "v2", focus: Positive = 1.3, weight: NonNegative = 1.0
    ) -> None:
        super().__init__(weight=weight)
        self.version, self.focus = version, focus

    def costs(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        penalty = ((predicted - boxes).abs() / box_ops.sides(boxes).repeat(1, 2)).mean(dim=-1)
        costs = 2 - box_ops.paired_iou(predicted, boxes) - torch.exp(-penalty.square())
        if self.version == "v1":
            return costs
        x = self.focus * torch.exp(-penalty)
        return 3 * x * torch.exp(-x.square()) * costs
