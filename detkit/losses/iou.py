"""Box losses in box space: one minus an overlap measure of decoded and true boxes."""

from __future__ import annotations

from torch import Tensor

from detkit.coders.base import BoxCoder
from detkit.losses.base import BoxLoss
from detkit.registry import BOX_LOSSES


@BOX_LOSSES.register()
class GIoULoss(BoxLoss):
    """1 - generalised IoU (1902.09630, algorithm 1), by torchvision. weight: factor on the sum."""

    def __init__(self, *, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, deltas: Tensor, anchors: Tensor, boxes: Tensor, coder: BoxCoder) -> Tensor:
        """See `BoxLoss.forward`."""
        from torchvision.ops import generalized_box_iou_loss

        predicted = coder.decode(deltas.to(anchors.dtype), anchors)
        total: Tensor = generalized_box_iou_loss(predicted, boxes, reduction="sum")
        return self.weight * total
