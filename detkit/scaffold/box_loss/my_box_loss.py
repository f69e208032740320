"""A box loss: what a wrong box costs."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from detkit.coders.base import BoxCoder
from detkit.losses.base import BoxLoss, weighted_sum
from detkit.registry import BOX_LOSSES, NonNegative, Positive


@BOX_LOSSES.register()
class MyBoxLoss(BoxLoss):
    """Smooth L1 distance of the four edges, in sides of the anchor.

    Args:
        beta: distance below which the loss is quadratic.
        weight: factor on the sum.
    """

    # The arguments are the keys of the config. Their types say the bounds.
    def __init__(self, *, beta: Positive = 0.1, weight: NonNegative = 2.0) -> None:
        super().__init__()
        self.beta, self.weight = beta, weight

    def forward(
        self, deltas: Tensor, anchors: Tensor, boxes: Tensor, coder: BoxCoder, weights: Tensor | None = None
    ) -> Tensor:
        """Predicted deltas, anchors and true boxes of the P positives, each (P, 4) -> the sum, a scalar.

        weights: (P,) factors of the boxes, where `losses.box_weight` sets some.
        """
        # A sum, never a mean: detkit divides once, by the positives of the global batch. P can be 0.
        predicted = coder.decode(deltas.to(anchors.dtype), anchors)  # xyxy pixels; or compare deltas with coder.encode

        # Change from here: the cost of every box.
        sides = (anchors[:, 2:] - anchors[:, :2]).repeat(1, 2)
        costs = F.smooth_l1_loss(predicted / sides, boxes / sides, reduction="none", beta=self.beta)
        return self.weight * weighted_sum(costs, weights)
