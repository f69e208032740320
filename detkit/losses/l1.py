"""L1 and smooth L1 on deltas (1504.08083, equation 3)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from detkit.coders.base import BoxCoder
from detkit.losses.base import BoxLoss
from detkit.registry import BOX_LOSSES, NonNegative


@BOX_LOSSES.register()
class SmoothL1Loss(BoxLoss):
    """Smooth L1 loss between predicted and encoded deltas.

    Args:
        beta: difference below which the loss is quadratic; above it is linear.
        weight: factor on the sum.
    """

    def __init__(self, *, beta: NonNegative = 0.1, weight: NonNegative = 1.0) -> None:
        super().__init__()
        self.beta, self.weight = beta, weight

    def forward(self, deltas: Tensor, anchors: Tensor, boxes: Tensor, coder: BoxCoder) -> Tensor:
        deltas = deltas.to(anchors.dtype)
        return self.weight * F.smooth_l1_loss(deltas, coder.encode(boxes, anchors), reduction="sum", beta=self.beta)


@BOX_LOSSES.register()
class L1Loss(BoxLoss):
    """Absolute difference between predicted and encoded deltas.

    Args:
        weight: factor on the sum.
    """

    def __init__(self, *, weight: NonNegative = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, deltas: Tensor, anchors: Tensor, boxes: Tensor, coder: BoxCoder) -> Tensor:
        deltas = deltas.to(anchors.dtype)
        return self.weight * F.l1_loss(deltas, coder.encode(boxes, anchors), reduction="sum")
