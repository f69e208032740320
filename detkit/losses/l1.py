"""L1 and smooth L1 on deltas (1504.08083, equation 3)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from detkit.coders.base import BoxCoder
from detkit.losses.base import BoxLoss
from detkit.registry import BOX_LOSSES
from detkit.registry.arguments import LARGEST_FLOAT, within


@BOX_LOSSES.register()
class SmoothL1Loss(BoxLoss):
    """Quadratic below `beta`, linear above, between predicted and encoded deltas. weight: factor on the sum."""

    def __init__(self, *, beta: float = 0.1, weight: float = 1.0) -> None:
        super().__init__()
        if beta < 0:
            raise ValueError(f"beta: {beta} is negative")
        within("weight", weight, 0, LARGEST_FLOAT)
        self.beta, self.weight = beta, weight

    def forward(self, deltas: Tensor, anchors: Tensor, boxes: Tensor, coder: BoxCoder) -> Tensor:
        """See `BoxLoss.forward`."""
        wide = deltas.to(anchors.dtype)
        return self.weight * F.smooth_l1_loss(wide, coder.encode(boxes, anchors), reduction="sum", beta=self.beta)


@BOX_LOSSES.register()
class L1Loss(BoxLoss):
    """Absolute difference between predicted and encoded deltas. weight: factor on the sum."""

    def __init__(self, *, weight: float = 1.0) -> None:
        super().__init__()
        within("weight", weight, 0, LARGEST_FLOAT)
        self.weight = weight

    def forward(self, deltas: Tensor, anchors: Tensor, boxes: Tensor, coder: BoxCoder) -> Tensor:
        """See `BoxLoss.forward`."""
        wide = deltas.to(anchors.dtype)
        return self.weight * F.l1_loss(wide, coder.encode(boxes, anchors), reduction="sum")
