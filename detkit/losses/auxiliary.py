"""Terms beside class and box: distribution focal loss, and L1 late in training."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from detkit import boxes as box_ops
from detkit.coders.base import BoxCoder
from detkit.losses.base import AuxiliaryLoss, can_weigh, weighted_sum
from detkit.losses.normalizers import WeightSum
from detkit.losses.sigmoid import to_float32
from detkit.registry import AUXILIARY_LOSSES, BOX_LOSSES, BoxLossNode, Fraction, NonNegative, Positive
from detkit.structures import Positives

NEAR_THE_END = 0.1
"""How far below the last value a target stays, so that it lies between two values."""


@AUXILIARY_LOSSES.register()
class DistributionFocalLoss(AuxiliaryLoss):
    """Cross-entropy to the two values around the true distance, weighted by how near they are (2006.04388, eq. 6).

    The mean over the four edges. Needs a coder of distributions, such as `DistributionCoder`.

    Args:
        weight: factor on the sum.
    """

    name, of_coder = "distribution", ("logits", "bins")

    def __init__(self, *, weight: NonNegative = 0.25) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, positives: Positives, coder: Any, weights: Tensor | None = None) -> Tensor:
        logits = to_float32(coder.logits(positives.deltas))
        targets = coder.encode(positives.boxes, positives.anchors).clamp(0, coder.bins - NEAR_THE_END)
        below = targets.floor().long()
        share = targets - below
        costs = logits.log_softmax(dim=-1).neg()
        lower, upper = (costs.gather(-1, (below + i)[..., None])[..., 0] for i in (0, 1))
        return self.weight * weighted_sum((lower * (1 - share) + upper * share) / 4, weights)


@AUXILIARY_LOSSES.register()
class FirstBoxLoss(AuxiliaryLoss):
    """A box loss on the boxes before the head refined them, each weighted by its IoU with the true box, over their sum.

    Needs a head that refines its boxes, such as `StarHead`.

    Source: 2008.13367, equation 3.

    Args:
        box: the box loss, with its weight.
        least: smallest divisor, so that a step with next to nothing does not explode.
    """

    name, weighted = "first_box", False

    def __init__(self, *, box: BoxLossNode, least: Positive = 1.0) -> None:
        super().__init__(normalizer=WeightSum(least=least))
        self.box = BOX_LOSSES.build(box)
        self.in_deltas = self.box.in_deltas
        if not can_weigh(self.box):
            raise ValueError(
                f"box: {type(self.box).__name__} can't weigh its boxes, as FirstBoxLoss does: its forward needs the "
                "argument `weights`"
            )

    def weigh(self, positives: Positives, coder: BoxCoder, weights: Tensor | None) -> Tensor:
        boxes = coder.decode(first_of(positives).to(positives.anchors.dtype), positives.anchors)
        return box_ops.paired_iou(boxes, positives.boxes)

    def forward(self, positives: Positives, coder: BoxCoder, weights: Tensor | None = None) -> Tensor:
        total: Tensor = self.box(first_of(positives), positives.anchors, positives.boxes, coder, weights)
        return total

    def take_accumulated(self) -> Tensor:
        sums: Tensor = self.box.take_accumulated()
        return sums

    def end_step(self, totals: Tensor) -> None:
        self.box.end_step(totals)


def first_of(positives: Positives) -> Tensor:
    """The columns before refinement."""
    if positives.first is None:
        raise ValueError(
            "losses.auxiliary: FirstBoxLoss needs boxes before their refinement, which the head does not give: use a "
            "head that refines its boxes, such as StarHead, or remove the loss"
        )
    return positives.first


@AUXILIARY_LOSSES.register()
class LateL1Loss(AuxiliaryLoss):
    """Absolute difference between predicted and encoded deltas, late in training (YOLOX, 2107.08430).

    Args:
        after: fraction of the training from which it counts; 0 is from the beginning.
        weight: factor on the sum.
    """

    name, weighted, in_deltas = "l1", False, True

    def __init__(self, *, after: Fraction = 0.95, weight: NonNegative = 1.0) -> None:
        super().__init__()
        self.after, self.weight = after, weight

    def forward(self, positives: Positives, coder: BoxCoder, weights: Tensor | None = None) -> Tensor:
        deltas = to_float32(positives.deltas)
        costs = F.l1_loss(deltas, coder.encode(positives.boxes, positives.anchors), reduction="none")
        return (self.weight if positives.progress >= self.after else 0.0) * weighted_sum(costs, weights)
